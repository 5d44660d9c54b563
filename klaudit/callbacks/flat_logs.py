"""For trainers that have loggers and no callbacks: a run that is told a step and a flat mapping of numbers, as W&B would be."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from klaudit.callbacks.enforcement import explain_stop, find_due_action
from klaudit.callbacks.identity import IdentityWorker, describe_identity
from klaudit.callbacks.recording import Guarded, never_raise, plan_recording, say
from klaudit.exchange.frameworks import Framework
from klaudit.exchange.metric_map import find_beta, find_scales, read_logs, resolve_series
from klaudit.exchange.secrets import describe_arguments
from klaudit.records import ReferenceModel, Run
from klaudit.workflows.recorder.run_recorder import RunRecorder


class FlatLogs(Guarded):
    """Records and audits the run of a trainer whose keys are known. The run begins with the first step, since a resumed trainer opens its loggers before it knows where it goes on.

    Store and webhook are those of the settings, budgets those that a person set in the store.

    Args:
        name: of the run.
        framework: whose keys they are.
        arguments: the trainer's, nested; empty where they are not known.
        policy: name or path of the model that is trained.
        reference: of the model that KL is measured against; None: none is loaded.
        batch_size: sequences a step.
        planned_steps: how many steps are meant.
        logging_steps: how many steps lie between two logs: a first log of a later step is one of a resumed trainer.

    Raises:
        InvalidConfig: settings that cannot be read.
    """

    def __init__(
        self,
        name: str,
        *,
        framework: Framework,
        arguments: Mapping[str, Any],
        policy: str | None = None,
        reference: str | None = None,
        batch_size: int | None = None,
        planned_steps: int | None = None,
        logging_steps: int = 1,
    ) -> None:
        super().__init__()
        self._plan = plan_recording(store=None, budget=None, policy=None, webhook=None)
        self._name = name
        self._framework = framework
        self._arguments = arguments
        self._policy = policy
        self._reference = reference
        self._batch_size = batch_size
        self._planned_steps = planned_steps
        self._logging_steps = logging_steps
        self._scales = find_scales(framework, arguments)
        self._recorder: RunRecorder | None = None
        self._identity: IdentityWorker | None = None
        self._kept: dict[str, Any] = {}
        self._last_step: int | None = None
        self._last_keys: frozenset[str] = frozenset()
        self._is_closed = False

    @property
    def run(self) -> Run | None:
        """The run as it stands in the store; None before its first step."""
        return None if self._recorder is None else self._recorder.run

    @property
    def is_complete(self) -> bool:
        """Whether the last step that was planned was logged; True where nothing is known of a plan."""
        return self._planned_steps is None or (self._last_step or 0) >= self._planned_steps

    @never_raise
    def log(self, step: int, logs: Mapping[str, Any]) -> None:
        """Record one step. What several loggers are told of one step is recorded once; what is new in it stands with the next step.

        Args:
            step: the trainer's global step.
            logs: what it logs.

        Raises:
            KLBudgetExceeded: a budget with action "stop" was broken; the step is recorded and the run closed.
        """
        if self._is_closed or not logs:
            return
        if step == self._last_step:
            self.keep({key: value for key, value in logs.items() if key not in self._last_keys})
            return
        recorder = self._recorder or self._begin(step, logs)
        self._last_step, self._last_keys = step, frozenset(logs)
        record = read_logs(
            {**self._kept, **logs},
            framework=self._framework,
            series=recorder.run.series,
            step=step,
            segment=recorder.segment,
            logged_at=datetime.now(UTC),
            beta=find_beta(self._framework, self._arguments),
            n_sequences=self._batch_size,
            scales=self._scales,
        )
        self._kept.clear()
        for finding in recorder.log(record):
            if find_due_action(finding) == "stop":
                recorder.note_stop(finding)
                self.close()
                raise explain_stop(finding, run_name=recorder.run.name)

    @never_raise
    def keep(self, logs: Mapping[str, Any]) -> None:
        """Keep what an evaluation says for the next step: it is of the policy whose KL that step logs, since rollouts precede updates."""
        self._kept |= logs

    @never_raise
    def close(self, *, failed: bool = False) -> None:
        """End the run; a second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            if self._identity is not None:
                self._identity.close()
            if self._recorder is not None:
                self._recorder.close(failed=failed)

    def _begin(self, step: int, logs: Mapping[str, Any]) -> RunRecorder:
        # Settings say what will be logged; without them only the keys do.
        logged = None if self._arguments else logs.keys()
        series, notes = resolve_series(self._framework, arguments=self._arguments, logged=logged)
        run = Run(
            id="",
            name=self._name,
            started_at=datetime.now(UTC),
            algorithm=self._framework.algorithm,
            framework=self._framework.name,
            policy=self._policy,
            reference=None if self._reference is None else ReferenceModel(self._reference),
            batch_size=self._batch_size,
            beta=find_beta(self._framework, self._arguments),
            planned_steps=self._planned_steps,
            series=series,
            config=describe_arguments(self._arguments),
        )
        resumed_from_step = step - 1 if step > self._logging_steps else None
        recorder = self._plan.begin(run, reporter=self.guard, resumed_from_step=resumed_from_step, in_use="rename")
        recorder.declare_series(series, framework=self._framework.name, algorithm=self._framework.algorithm)
        self._recorder = recorder
        self._identity = IdentityWorker(recorder, guard=self.guard)
        self._identity.describe(describe_identity(policy=self._policy, reference=self._reference))
        self._identity.note(notes)
        self._say_what_is_seen(recorder, series_keys=logged or [one.source_key or "" for one in series.values()], notes=notes)
        return recorder

    def _say_what_is_seen(self, recorder: RunRecorder, *, series_keys: Any, notes: tuple[str, ...]) -> None:
        # Needs transformers, which a trainer has.
        from klaudit.callbacks.trainer_callback import describe_view

        say("; ".join((describe_view(recorder.run, logged=series_keys, has_heldout=False, store=recorder.store_url), *notes)))
