"""Several logs at one global step, and one record a step: what a later log adds stands with the next step."""

from collections.abc import Mapping
from typing import Any

from klaudit.errors import InvalidRecord
from klaudit.exchange.metric_map import END_OF_TRAINING, EVALUATION

SUMMARY = END_OF_TRAINING | {"train_steps_per_second", "train_tokens_per_second", "train_loss", "total_flos"}
"""What else is of the whole training in it."""

SPEED_OF_EVALUATION = frozenset({"eval_runtime", "eval_samples_per_second", "eval_steps_per_second", "eval_model_preparation_time"})
"""Keys that say nothing about the policy."""

REPEATED_AT_WILL = frozenset({"epoch", "learning_rate", "num_input_tokens_seen", "num_tokens"})
"""Keys that trainers add to every log, so that seeing them twice at a step repeats nothing."""


class StepLogs:
    """Makes one mapping a step of what a trainer logs.

    A record that was handed over is never changed. An evaluation after step t, and what a loss function logs before step t + 1 is
    counted, are of the policy whose KL step t + 1 logs, since rollouts precede updates; so they stand with that step.
    """

    def __init__(self) -> None:
        self._step: int | None = None
        self._recorded: frozenset[str] = frozenset()
        self._kept: dict[str, Any] = {}

    def take(self, step: int, logs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The numbers of a step that begins with this log, what was kept for it included; None for a log that is no step of its own.

        Args:
            step: the trainer's global step.
            logs: what it logged.

        Raises:
            InvalidRecord: a step that is logged a second time; what was recorded first stays, and new keys are kept for the next step.
        """
        if END_OF_TRAINING & logs.keys():
            # TRL puts into it the means of the steps that came after the last full `logging_steps`.
            logs = {key: value for key, value in logs.items() if key not in SUMMARY}
            if step == self._step or not logs.keys() - REPEATED_AT_WILL:
                return None
        if not logs:
            return None
        if any(key.startswith(EVALUATION) for key in logs):
            self._keep(logs, but=SPEED_OF_EVALUATION | REPEATED_AT_WILL)
            return None
        if step == self._step:
            self._keep(logs, but=self._recorded | REPEATED_AT_WILL)
            if repeated := sorted(self._recorded.intersection(logs) - REPEATED_AT_WILL):
                raise InvalidRecord(f"expected one log of step {step}; got a second one of {', '.join(repeated)}: the first is on record")
            return None
        self._step, self._recorded = step, frozenset(logs)
        kept, self._kept = self._kept, {}
        return {**kept, **logs}

    def _keep(self, logs: Mapping[str, Any], *, but: frozenset[str]) -> None:
        self._kept |= {key: value for key, value in logs.items() if key not in but}
