"""A reward that the policy is not trained on, measured while it trains: what shows that the trained one is being hacked."""

import time
from collections.abc import Callable
from typing import Any

from klaudit.callbacks.recording import Guard, say
from klaudit.callbacks.undisturbed import leave_undisturbed
from klaudit.callbacks.whole_model import explain_incomplete
from klaudit.errors import InvalidConfig

HELDOUT_SCORE = "heldout_score"
"""The metric's name."""


class HeldoutScore:
    """A function that scores the policy every few steps.

    It runs on rank 0, in evaluation mode; random generators, modes and flags are put back afterwards, so that training is the same to the
    bit with and without it. What it raises is counted and said once, and training goes on.

    Args:
        score: gets the policy and the number of the step whose update comes next; gives the score as a number, the higher the better. NaN is
            recorded as what it is. It must not wait for other ranks.
        every_n_steps: measured at step 1 and at its multiples.

    Raises:
        InvalidConfig: nothing that can be called, or no whole number of steps.
    """

    def __init__(self, score: Callable[[Any, int], float], *, every_n_steps: int = 10) -> None:
        if not callable(score):
            raise InvalidConfig(f"HeldoutScore.score must be a function of model and step that gives a number; got {score!r}")
        if isinstance(every_n_steps, bool) or not isinstance(every_n_steps, int) or every_n_steps < 1:
            raise InvalidConfig(f"HeldoutScore.every_n_steps must be a whole number, 1 or more; got {every_n_steps!r}")
        self.score, self.every_n_steps = score, every_n_steps
        self._guard = Guard()
        self._kept: dict[int, dict[str, float]] = {}
        self._unavailable: str | None = None

    @property
    def failures(self) -> int:
        """Measurements that failed; training went on."""
        return self._guard.failures

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be measured; None where it can."""
        return self._unavailable

    def begin(self, policy: Any) -> None:
        """Forget an earlier training, and say once where the policy cannot be scored on one rank.

        Args:
            policy: the model as the trainer holds it.
        """
        self._kept.clear()
        self._unavailable = explain_incomplete(policy)
        if self._unavailable is not None:
            say(f"the held-out score is off: {self._unavailable}")

    def observe(self, policy: Any, *, step: int) -> None:
        """Measure and keep when the next step is due; to call as training begins and after each update.

        Args:
            policy: the model as the trainer holds it.
            step: updates that it has had, which is `global_step` of a Hugging Face trainer.
        """
        following = step + 1
        if self._unavailable is not None or not (following == 1 or following % self.every_n_steps == 0):
            return
        begin = time.perf_counter()
        try:
            with leave_undisturbed(policy):
                score = float(self.score(policy, following))
        except Exception as error:
            self._guard.note("the held-out score", error)
        else:
            self._kept[following] = {HELDOUT_SCORE: score, "heldout_seconds": time.perf_counter() - begin}

    def take(self, step: int) -> dict[str, float]:
        """The metrics that the record of `step` has of it: of the policy before that step's update, the one whose KL a trainer logs then.

        A trainer that does not log every step gets what was measured last.
        """
        waiting = [kept for kept in self._kept if kept <= step]
        measured = {kept: self._kept.pop(kept) for kept in waiting}
        return measured[max(waiting)] if waiting else {}


def require_heldout(heldout: object) -> None:
    """Refuse what is neither a HeldoutScore nor the name of a logged number.

    Raises:
        InvalidConfig: anything else.
    """
    if not (heldout is None or isinstance(heldout, HeldoutScore) or (isinstance(heldout, str) and heldout)):
        raise InvalidConfig(
            "heldout must be klaudit.HeldoutScore(function, every_n_steps=N), or the key under which the trainer logs the score, such as "
            f"'eval_reward'; got {heldout!r}"
        )
