"""For a training loop of one's own: start a run, log its steps, close it."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, Self

from klaudit.audit import Policy
from klaudit.callbacks.enforcement import explain_stop, find_due_action
from klaudit.callbacks.identity import IdentityWorker, describe_identity
from klaudit.callbacks.recording import Guard, Guarded, never_raise, plan_recording
from klaudit.errors import InvalidBudget, InvalidRecord
from klaudit.exchange.secrets import describe_arguments
from klaudit.records import PRIMARY, UNDECLARED, KLBudget, KLReading, KLSeries, ReferenceModel, Run, StepRecord, TextSample
from klaudit.records.session import Resume
from klaudit.records.step import require_step
from klaudit.workflows.recorder.run_recorder import RunRecorder
from klaudit.workflows.recorder.start import Durability


class LoopRun(Guarded):
    """A run that a loop logs to. Use it as a context manager, or call `close`."""

    def __init__(self, recorder: RunRecorder, guard: Guard) -> None:
        super().__init__(guard)
        self._recorder = recorder
        self._identity = IdentityWorker(recorder, guard=guard)
        run = recorder.run
        self._identity.describe(describe_identity(policy=run.policy, reference=run.reference))
        self._closed = False
        self._has_bare_kl = False

    @property
    def record(self) -> Run:
        """The run as it stands in the store."""
        return self._recorder.run

    @property
    def segment(self) -> int:
        """Which stretch of the run this process writes; 0 for the first."""
        return self._recorder.segment

    @property
    def failures(self) -> int:
        """How often klaudit failed, lost steps included; the loop went on. Waits a bounded time for what was logged to be stored."""
        if not self._closed:
            self._recorder.flush()
        return self.guard.failures + self._recorder.n_lost

    @property
    def lost(self) -> int:
        """Steps whose `log()` returned and that neither the store nor a journal took."""
        return self._recorder.n_lost

    @never_raise
    def log(
        self,
        *,
        step: int,
        kl: float | KLReading | None = None,
        beta: float | None = None,
        score: float | None = None,
        metrics: Mapping[str, float] | None = None,
        readings: Mapping[str, KLReading] | None = None,
        samples: Iterable[TextSample] = (),
    ) -> None:
        """Record one step. What goes wrong inside klaudit is counted in `failures` and never raised.

        Args:
            step: the loop's global step.
            kl: a number of the run's declared series, or a reading; None: not measured at this step.
            beta: KL coefficient in force.
            score: raw reward, mean over the batch.
            metrics: everything else; names with a meaning are those of `klaudit.exchange.own_keys.METRIC_NAMES`.
            readings: other KLs by series key.
            samples: a few completions with per-token log-probabilities.

        Raises:
            KLBudgetExceeded: a budget with action "stop" was broken; the step is recorded and the run closed.
        """
        if self._closed:
            raise InvalidRecord(f"expected steps before the run is closed; got step {step} after it")
        if type(step) is not int:
            step = to_step(step)
        run = self._recorder.run
        if not (readings or samples or self._recorder.has_brake) and are_numbers(kl, beta, score, metrics or {}):
            assert not isinstance(kl, KLReading)
            self._has_bare_kl = self._has_bare_kl or kl is not None
            self._recorder.log_numbers(step, kl=kl, beta=run.beta if beta is None else beta, score=score, metrics=metrics)
            return
        numbers = to_numbers(metrics or {})
        record = StepRecord(
            step=step,
            kl=self._to_reading(kl, numbers),
            logged_at=datetime.now(UTC),
            segment=self._recorder.segment,
            beta=run.beta if beta is None else float(beta),
            score=None if score is None else float(score),
            readings=dict(readings or {}),
            metrics=numbers,
        )
        # What bare numbers were is settled: a later reading must not give them another meaning.
        given = {**record.readings} if self._has_bare_kl else {PRIMARY: record.kl, **record.readings}
        undeclared = {key: one.series for key, one in given.items() if run.series.get(key, UNDECLARED) == UNDECLARED != one.series}
        if undeclared:
            self._recorder.declare_series(undeclared)
        for finding in self._recorder.log(record, samples=tuple(samples)):
            if find_due_action(finding) == "stop":
                self._recorder.note_stop(finding)
                self.close()
                raise explain_stop(finding, run_name=run.name)

    @never_raise
    def close(self, *, failed: bool = False) -> None:
        """End the run; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._identity.close()
            self._recorder.close(failed=failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def _to_reading(self, kl: float | KLReading | None, metrics: Mapping[str, float]) -> KLReading:
        if isinstance(kl, KLReading):
            return kl
        series = self._recorder.run.series[PRIMARY]
        if kl is None:
            return KLReading.absent(series, "the loop gave no kl at this step")
        self._has_bare_kl = True
        return KLReading(series, float(kl), None, self._recorder.run.batch_size, metrics.get("response_length"))


def to_step(step: Any) -> int:
    """A whole number of any library as Python's own.

    Raises:
        InvalidRecord: it is none, or a truth value.
    """
    whole = None if isinstance(step, bool) else getattr(step, "__index__", None)
    found = step if whole is None else whole()
    require_step(found)
    return int(found)


def to_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats.

    Raises:
        InvalidRecord: no mapping, a name that is no text, or a value that is no number.
    """
    if not isinstance(metrics, Mapping):
        raise InvalidRecord(f"metrics: expected a mapping of names to numbers; got {metrics!r:.80}")
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError) as error:
            raise InvalidRecord(f"metrics[{name!r}]: expected a number; got {value!r:.80}") from error
        if not isinstance(name, str):
            raise InvalidRecord(f"metrics: expected names that are texts; got {name!r}")
    return numbers


def are_numbers(kl: object, beta: object, score: object, metrics: Mapping[str, object]) -> bool:
    """Whether a step is nothing but Python's own numbers, which need no look at them one by one."""
    return {type(kl), type(beta), type(score)} <= {float, int, NoneType} and (
        isinstance(metrics, Mapping) and set(map(type, metrics.values())) <= {float, int} and set(map(type, metrics)) <= {str}
    )


def start_run(
    name: str,
    *,
    kl: KLSeries | None = None,
    batch_size: int | None = None,
    beta: float | None = None,
    planned_steps: int | None = None,
    algorithm: str | None = None,
    policy_model: str | None = None,
    reference: ReferenceModel | None = None,
    config: Mapping[str, Any] | None = None,
    budget: KLBudget | Iterable[KLBudget] | None = None,
    store: str | None = None,
    policy: Policy | Path | str | None = None,
    webhook: str | None = None,
    resumed_from_step: int | None = None,
    resume: Resume = "auto",
    durability: Durability = "step",
    journal: Path | str | Iterable[Path | str] | None = None,
) -> LoopRun:
    """Begin a run for any loop.

    Args:
        name: of the run; a taken name gives `name-2`.
        kl: what the loop's `kl` is; left out, the first KLReading says it, and bare numbers are recorded as unknown and compared with nothing.
        batch_size: sequences a step.
        beta: KL coefficient, where it does not change.
        planned_steps: how many steps are meant.
        algorithm: such as `ppo`.
        policy_model: name of the model that is trained.
        reference: the model that KL is measured against.
        config: the loop's settings, as JSON.
        budget: KL budgets of this run, besides those in the store that cover it.
        store: SQLAlchemy URL; default `$KLAUDIT_STORE`, else `sqlite:///klaudit.db`.
        policy: of the live audit: a Policy, the name of a preset, or a TOML file; it is kept with the run.
        webhook: URL that alerts are posted to; default `$KLAUDIT_WEBHOOK`.
        resumed_from_step: goes on with the run of that name in a new segment.
        resume: `auto`; `never`: always a new run; `must`: goes on with the run of that name whatever the step, and one must be there.
        durability: `step`: a step whose `log` returned survives the death of the process; `batch`: all but those of the last 0.1 s do,
            for loops that log thousands of times a second.
        journal: directory that steps wait in for the store, or two; default `$KLAUDIT_JOURNAL`, else beside an SQLite store.

    Raises:
        RunInUse: a live process writes that run.
        RunNotFound: `resume="must"` and there is no such run.
        StoreError: the store cannot be used.
        InvalidRecord: a value that a run cannot hold, a budget whose action a loop cannot take.
        InvalidConfig: a policy file, a webhook or a settings file that cannot be read.
    """
    plan = plan_recording(store=store, budget=budget, policy=policy, webhook=webhook, resume=resume, durability=durability, journal=journal)
    if any(one.action == "save_checkpoint" for one in plan.budgets):
        raise InvalidBudget("KLBudget.action 'save_checkpoint' needs a trainer that saves for klaudit; in a loop use alert or stop")
    run = Run(
        id="",
        name=name,
        started_at=datetime.now(UTC),
        algorithm=algorithm,
        framework="loop",
        policy=policy_model,
        reference=reference,
        batch_size=batch_size,
        beta=beta,
        planned_steps=planned_steps,
        series={PRIMARY: kl or UNDECLARED},
        config=describe_arguments(config or {}),
    )
    guard = Guard()
    return LoopRun(plan.begin(run, reporter=guard, resumed_from_step=resumed_from_step), guard)
