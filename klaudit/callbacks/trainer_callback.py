"""The callback for every trainer that speaks Hugging Face's TrainerCallback protocol: the embedded PPO, TRL, and any Trainer."""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from klaudit.audit import Policy
from klaudit.callbacks.enforcement import explain_stop, find_due_action
from klaudit.callbacks.heldout import HELDOUT_SCORE, HeldoutScore, require_heldout
from klaudit.callbacks.identity import IdentityWorker, describe_identity
from klaudit.callbacks.probe import LiveProbe, ProbeReading
from klaudit.callbacks.ranks import Decision, agree_to_share, has_peers, share_decision
from klaudit.callbacks.recording import Guarded, never_raise, plan_recording, say
from klaudit.callbacks.step_logs import StepLogs
from klaudit.callbacks.trainer_settings import (
    find_base_model,
    find_batch_size,
    find_beta,
    find_policy_name,
    find_reference,
    find_reference_model,
    find_trl_version,
    name_library_class,
    name_model,
    note_reference,
    read_arguments,
)
from klaudit.callbacks.whole_model import unwrap_model
from klaudit.errors import InvalidConfig, KLBudgetExceeded
from klaudit.exchange.metric_map import (
    UNKNOWN_TRAINER,
    Framework,
    detect_framework,
    find_scales,
    read_logs,
    resolve_series,
)
from klaudit.exchange.own_keys import extend_framework
from klaudit.exchange.secrets import describe_arguments
from klaudit.records import PRIMARY, Finding, KLBudget, KLSeries, ReferenceModel, Run, StepRecord, TextSample
from klaudit.records.session import Resume
from klaudit.workflows.recorder.run_recorder import RunRecorder
from klaudit.workflows.recorder.start import Durability

TRAININGS = itertools.count(1)
"""Numbers the trainings of this process, alike on every rank, whatever their runs are called."""


class KLAuditCallback(Guarded, TrainerCallback):
    """Records and audits a run from inside its trainer. Rank 0 writes; the other ranks do nothing but stop and save with it.

    Give it to every rank: on rank 0 alone it records all the same, and a budget that says stop then ends rank 0 with an exception.

    Args:
        run: name of the run. A fresh start under a taken name is recorded as `name-2`; a resumed trainer goes on with the old run.
        budget: KL budgets of this run, besides those in the store that cover it.
        store: SQLAlchemy URL; default `$KLAUDIT_STORE`, else `sqlite:///klaudit.db`. A SQLite file is made when it is not there.
        policy: of the live audit: a Policy, the name of a preset, or a TOML file; it is kept with the run.
        webhook: URL that alerts are posted to; default `$KLAUDIT_WEBHOOK`.
        policy_model: name of the model that is trained; default: what its config says.
        reference: the model that KL is measured against, for the record; default: the trainer's, or a PEFT policy's base model.
        metric_map: what keys of your own mean: key -> a KLSeries, or `score`, `beta`, one of klaudit's metric names.
        heldout: a reward that the policy is not trained on: a HeldoutScore, or the key under which the trainer logs it, `eval_` ones included.
        probe: measures the KL itself, on prompts that stay the same.
        resume: whether a trainer that goes on from a step goes on with its run: `auto`, `never`, or `must`.
        durability: `step`: a recorded step survives the death of the process; `batch`: all but those of the last instant do.
        journal: directory for the journal, or two of them, the second for when the first cannot be written.
        trainer: the trainer itself, where it is at hand, as in `klaudit.attach`; it knows its own beta and reference.

    Raises:
        InvalidBudget: an action that cannot be taken.
        InvalidConfig: a policy, a webhook, a settings file, a metric map or a held-out score that cannot be read.
    """

    def __init__(
        self,
        run: str,
        *,
        budget: KLBudget | Iterable[KLBudget] | None = None,
        store: str | None = None,
        policy: Policy | Path | str | None = None,
        webhook: str | None = None,
        policy_model: str | None = None,
        reference: ReferenceModel | None = None,
        metric_map: Mapping[str, KLSeries | str] | None = None,
        heldout: HeldoutScore | str | None = None,
        probe: LiveProbe | None = None,
        resume: Resume = "auto",
        durability: Durability = "step",
        journal: Path | str | Iterable[Path | str] | None = None,
        trainer: Any = None,
    ) -> None:
        super().__init__()
        require_heldout(heldout)
        if metric_map is not None:
            extend_framework(UNKNOWN_TRAINER, metric_map)
        self._run_name = run
        self._plan = plan_recording(
            store=store, budget=budget, policy=policy, webhook=webhook, resume=resume, durability=durability, journal=journal
        )
        self._policy_model = policy_model
        self._reference = reference
        self._metric_map = metric_map
        self._heldout = heldout if isinstance(heldout, HeldoutScore) else None
        self._heldout_key = heldout if isinstance(heldout, str) else None
        self._probe = probe
        self._trainer = trainer
        self._framework: Framework | None = None
        self._recorder: RunRecorder | None = None
        self._identity: IdentityWorker | None = None
        self._run: Run | None = None
        self._logs = StepLogs()
        self._notes: list[str] = []
        self._scales: Mapping[str, float] = {}
        self._batch_size: int | None = None
        self._n_lost = 0
        self._enforced: set[str] = set()
        self._stop: Finding | None = None
        self._decision = Decision.GO_ON
        self._is_shared = False

    @property
    def run(self) -> Run | None:
        """The run as it is recorded; None before it began."""
        return self._run if self._recorder is None else self._recorder.run

    @property
    def failures(self) -> int:
        """How often klaudit failed inside this training, lost steps and failed measurements included; training went on."""
        if self._recorder is not None:
            self._recorder.flush()
            self._n_lost = self._recorder.n_lost
        measuring = sum(one.failures for one in (self._heldout, self._probe) if one is not None)
        return self.guard.failures + self._n_lost + measuring

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the store and begin the run, or its next segment."""
        if state.is_world_process_zero:
            self._begin(args, state, kwargs.get("model"), kwargs.get("processing_class"))
        self._meet_other_ranks()
        self._begin_measuring(kwargs.get("model"), kwargs.get("processing_class"), state.global_step)

    @never_raise
    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        samples: Sequence[TextSample] = (),
        **kwargs: Any,
    ) -> None:
        """Record one step, and take the actions that broken budgets ask for."""
        if self._recorder is None or (numbers := self._logs.take(state.global_step, logs or {})) is None:
            return
        if self._heldout_key in numbers:
            numbers[HELDOUT_SCORE] = numbers[self._heldout_key]
        if self._framework is None:
            self._framework = self._declare(args, numbers)
        step = read_logs(
            numbers,
            framework=self._framework,
            series=self._recorder.run.series,
            step=state.global_step,
            segment=self._recorder.segment,
            logged_at=datetime.now(UTC),
            beta=find_beta(args, self._trainer),
            n_sequences=self._batch_size,
            scales=self._scales,
        )
        for finding in self._recorder.log(self._add_measurements(step), samples=samples):
            self._enforce(finding)
        if not has_peers():
            self._obey(control)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the policy as the update left it, and do together with the other ranks what rank 0 decided.

        Raises:
            KLBudgetExceeded: a budget with action "stop" was broken, and the trainer never reads `should_training_stop`, as TRL's PPO does
                not, or the other ranks cannot be told.
        """
        self._observe_policy(kwargs.get("model"), state.global_step)
        if has_peers():
            self._decide_with_other_ranks(args, control)
        decision, self._decision = self._decision, Decision.GO_ON
        if decision is Decision.RAISE:
            self.close()
            name = self._run.name if self._run else self._run_name
            raise explain_stop(self._stop, run_name=name) if self._stop else KLBudgetExceeded(f"rank 0 stopped run {name!r}; it says why")

    @never_raise
    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the checkpoint."""
        if self._identity is not None:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._identity.add_checkpoint(step=state.global_step, path=str(path.resolve()))

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the run."""
        self.close()

    @never_raise
    def close(self, *, failed: bool = False) -> None:
        """End the run, where the trainer did not; a second call does nothing."""
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            if self._framework is None and not failed:
                say(f"run {recorder.run.name!r} ended and no step was recorded: the trainer logged none; look at its logging_steps")
            identity, self._identity = self._identity, None
            if identity is not None:
                identity.close()
            recorder.close(failed=failed)
            self._run, self._n_lost = recorder.run, recorder.n_lost

    @never_raise
    def _begin(self, args: Any, state: TrainerState, model: Any, tokenizer: Any) -> None:
        self.close(failed=True)
        self._framework, self._stop = None, None
        self._logs = StepLogs()
        self._enforced.clear()
        self._notes.clear()
        self._batch_size = find_batch_size(args)
        reference = self._reference or find_reference(self._trainer) or find_base_model(model)
        if self._reference is None and (note := note_reference(model, trainer=self._trainer)) is not None:
            self._notes.append(note)
        run = Run(
            id="",
            name=self._run_name,
            started_at=datetime.now(UTC),
            policy=self._policy_model or find_policy_name(self._trainer) or name_model(unwrap_model(model)),
            reference=reference,
            batch_size=self._batch_size,
            beta=find_beta(args, self._trainer),
            planned_steps=state.max_steps if state.max_steps and state.max_steps > 0 else None,
            config=describe_arguments(read_arguments(args)),
        )
        try:
            self._recorder = self._plan.begin(
                run, reporter=self.guard, resumed_from_step=state.global_step, in_use="rename", must_be_closed=True
            )
        except Exception as error:
            self.guard.failures += 1
            say(f"nothing of run {self._run_name!r} is recorded, and training goes on. {type(error).__name__}: {error}")
            return
        self._identity = IdentityWorker(self._recorder, guard=self.guard)
        held = find_reference_model(self._trainer) if self._reference is None else None
        identity = describe_identity(
            policy=model, reference=reference if held is None else held, tokenizer=tokenizer, trainer=self._trainer
        )
        self._identity.describe(identity)

    @never_raise
    def _meet_other_ranks(self) -> None:
        training = next(TRAININGS)
        self._decision, self._is_shared = Decision.GO_ON, False
        if has_peers():
            has_brake = self._recorder is not None and self._recorder.has_brake
            self._is_shared = agree_to_share(f"training {training}", has_brake=has_brake)

    @never_raise
    def _decide_with_other_ranks(self, args: Any, control: TrainerControl) -> None:
        if self._is_shared:
            self._decision = share_decision(self._decision, device=getattr(args, "device", "cpu"))
            self._obey(control)
        elif self._decision is Decision.STOP:
            self._decision = Decision.RAISE
        elif self._decision is Decision.SAVE:
            say("a budget asks for a checkpoint, and rank 0 alone cannot save one: attach klaudit on every rank")

    @never_raise
    def _begin_measuring(self, model: Any, tokenizer: Any, global_step: int) -> None:
        if self._recorder is None:
            return
        if self._probe is not None:
            self._probe.begin(model, tokenizer=tokenizer, reference=find_reference_model(self._trainer), step=global_step)
        if self._heldout is not None:
            self._heldout.begin(model)
        self._observe_policy(model, global_step)

    @never_raise
    def _observe_policy(self, model: Any, global_step: int) -> None:
        if self._recorder is None:
            return
        if self._probe is not None:
            self._probe.observe(model, step=global_step)
        if self._heldout is not None:
            self._heldout.observe(unwrap_model(model), step=global_step)

    def _add_measurements(self, step: StepRecord) -> StepRecord:
        probed = ProbeReading(step.step, {}) if self._probe is None else self._probe.take(step.step)
        scored = {} if self._heldout is None else self._heldout.take(step.step)
        if not (probed.readings or scored):
            return step
        return replace(step, readings={**step.readings, **probed.readings}, metrics={**step.metrics, **probed.metrics, **scored})

    def _declare(self, args: Any, logs: Mapping[str, Any]) -> Framework:
        assert self._recorder is not None
        try:
            arguments = read_arguments(args)
            framework = self._recognise(args, arguments, logs)
            version = find_trl_version(self._trainer, args)
            series, notes = resolve_series(framework, arguments=arguments, version=version, logged=logs.keys())
            self._scales = find_scales(framework, arguments)
        except Exception as error:
            # A step whose numbers nobody can name is worth more than none.
            self.guard.note("recognising the trainer", error)
            framework, self._scales = UNKNOWN_TRAINER, {}
            series, notes = resolve_series(framework, arguments={})
        self._notes += notes
        probed = {} if self._probe is None else self._probe.series
        self._recorder.declare_series({**series, **probed}, framework=framework.name, algorithm=framework.algorithm)
        self._say_what_is_seen(logs)
        if self._identity is not None:
            self._identity.note(tuple(self._notes))
        return framework

    def _recognise(self, args: Any, arguments: Mapping[str, Any], logs: Mapping[str, Any]) -> Framework:
        classes = {"trainer_class": name_library_class(self._trainer), "arguments_class": name_library_class(args)}
        framework = detect_framework(logs, arguments=arguments, **classes) or UNKNOWN_TRAINER
        if self._metric_map is None:
            return framework
        try:
            return extend_framework(framework, self._metric_map)
        except InvalidConfig as error:
            # What it says may contradict this trainer's own keys, which nobody knew before; the steps are worth more.
            self.guard.note("the metric map", error)
            return framework

    def _say_what_is_seen(self, logs: Mapping[str, Any]) -> None:
        assert self._recorder is not None
        has_heldout = self._heldout is not None or HELDOUT_SCORE in logs or self._heldout_key is not None
        line = describe_view(self._recorder.run, logged=logs.keys(), has_heldout=has_heldout, store=self._recorder.store_url)
        probe = () if self._probe is None else (f"probe: {self._probe.description}",)
        say("; ".join((line, *probe, *self._notes)))

    def _enforce(self, finding: Finding) -> None:
        """Once an episode: a checkpoint at each of its steps would fill the disk."""
        action = find_due_action(finding)
        if action is None or finding.id in self._enforced:
            return
        self._enforced.add(finding.id)
        if action == "save_checkpoint":
            self._decision = max(self._decision, Decision.SAVE)
        if action == "stop":
            say(f"the training is stopped at step {finding.last_step}, as its KL budget says")
            reads_should_stop = self._framework is None or self._framework.reads_should_stop
            self._decision = Decision.STOP if reads_should_stop else Decision.RAISE
            self._stop = finding
            if self._recorder is not None:
                self._recorder.note_stop(finding)

    def _obey(self, control: TrainerControl) -> None:
        if self._decision >= Decision.SAVE:
            control.should_save = True
        if self._decision >= Decision.STOP:
            control.should_training_stop = True


def describe_view(run: Run, *, logged: Collection[str], has_heldout: bool, store: str) -> str:
    """One line that says what klaudit sees: `objective/kl: k1, nats per sequence, temperature 0.7; beta 0.05; no held-out score`."""
    series = run.series[PRIMARY]
    if series.kind != "reference" or series.source_key not in logged:
        kl = "no KL to the reference among the keys that this trainer logs"
    else:
        temperature = "unknown temperature" if series.temperature is None else f"temperature {series.temperature:g}"
        kl = f"{series.source_key}: {series.estimator}, {series.unit.replace('_', ' ')}, {temperature}"
    beta = "beta not seen" if run.beta is None else f"beta {run.beta:g}"
    return f"run {run.name!r} -> {store}; {kl}; {beta}; {'held-out score' if has_heldout else 'no held-out score'}"
