"""The callback for every trainer that speaks Hugging Face's TrainerCallback protocol: the embedded PPO, TRL, and any Trainer."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from klaudit.audit import Policy
from klaudit.callbacks.enforcement import explain_stop, find_due_action
from klaudit.callbacks.handover import Handover
from klaudit.callbacks.recording import Guarded, describe_arguments, never_raise, plan_recording, say
from klaudit.exchange.metric_map import UNKNOWN_TRAINER, Framework, declare_series, detect_framework, read_logs
from klaudit.records import PRIMARY, Finding, KLBudget, ReferenceModel, Run, TextSample
from klaudit.workflows.recorder import RunRecorder

END_OF_TRAINING = frozenset({"train_runtime", "train_samples_per_second"})
"""Keys of the summary that Hugging Face's Trainer logs once at the end; it is no step."""

EVALUATION = "eval_"
"""What the keys of an evaluation begin with, which the Trainer logs beside the step that it followed."""


class KLAuditCallback(Guarded, TrainerCallback):
    """Records and audits a run from inside its trainer. Rank 0 writes; the other ranks do nothing.

    Args:
        run: name of the run. A fresh start under a taken name is recorded as `name-2`; a resumed trainer goes on with the old run.
        budget: KL budgets of this run, besides those in the store that cover it.
        store: SQLAlchemy URL; default `$KLAUDIT_STORE`, else `sqlite:///klaudit.db`. A SQLite file is made when it is not there.
        policy: of the live audit: a Policy or a TOML file.
        webhook: URL that alerts are posted to; default `$KLAUDIT_WEBHOOK`.
        policy_model: name of the model that is trained; default: what its config says.
        reference: the model that KL is measured against, for the record.

    Raises:
        InvalidBudget: an action that cannot be taken.
        InvalidConfig: a policy, a webhook or a settings file that cannot be read.
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
    ) -> None:
        super().__init__()
        self._policy_model = policy_model
        self._run_name = run
        self._plan = plan_recording(store=store, budget=budget, policy=policy, webhook=webhook)
        self._reference = reference
        self._framework: Framework | None = None
        self._recorder: RunRecorder | None = None
        self._handover: Handover | None = None
        self._run: Run | None = None
        self._batch_size: int | None = None
        self._enforced: set[str] = set()
        self._stop: Finding | None = None

    @property
    def run(self) -> Run | None:
        """The run as it stands in the store; None before it began."""
        return self._run

    @property
    def failures(self) -> int:
        """How often klaudit failed inside this training; training went on."""
        if self._handover is not None:
            self._handover.drain()
        return self.guard.failures

    @never_raise
    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Open the store and begin the run, or its next segment."""
        if not state.is_world_process_zero:
            return
        self.close(failed=True)
        self._framework, self._stop = None, None
        self._enforced.clear()
        model = kwargs.get("model")
        self._batch_size = find_batch_size(args)
        run = Run(
            id="",
            name=self._run_name,
            started_at=datetime.now(UTC),
            policy=self._policy_model or name_model(getattr(model, "policy", model)),
            reference=self._reference,
            batch_size=self._batch_size,
            beta=find_beta(args),
            planned_steps=state.max_steps if state.max_steps and state.max_steps > 0 else None,
            config=describe_arguments(args.to_dict() if hasattr(args, "to_dict") else vars(args)),
        )
        self._recorder = self._plan.begin(run, resumed_from_step=state.global_step)
        self._handover = Handover(self.guard)
        self._run = self._recorder.run

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
        if self._recorder is None or self._handover is None or not logs or not is_step(logs):
            return
        if self._framework is None:
            self._framework = self._declare(args, logs)
        step = read_logs(
            logs,
            framework=self._framework,
            series=self._recorder.run.series,
            step=state.global_step,
            segment=self._recorder.segment,
            logged_at=datetime.now(UTC),
            beta=find_beta(args),
            n_sequences=self._batch_size,
        )
        findings = self._recorder.observe(step)
        # The brake first: it must hold when the store does not.
        for finding in findings:
            self._enforce(finding, control)
        self._handover.put(functools.partial(self._recorder.keep, step, samples=samples, findings=findings))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop trainers that never read `should_training_stop`, as TRL's PPO does not.

        Raises:
            KLBudgetExceeded: a budget with action "stop" was broken.
        """
        if self._stop is not None and self._framework is not None and not self._framework.reads_should_stop:
            self.close()
            raise explain_stop(self._stop, run_name=self._run.name if self._run else self._run_name)

    @never_raise
    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the checkpoint."""
        if self._recorder is not None and self._handover is not None:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            add = functools.partial(self._recorder.add_checkpoint, step=state.global_step, path=str(path.resolve()))
            self._handover.put(add)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the run."""
        self.close()

    @never_raise
    def close(self, *, failed: bool = False) -> None:
        """End the run, where the trainer did not; a second call does nothing."""
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            handover, self._handover = self._handover, None
            if handover is not None:
                handover.close()
            recorder.close(failed=failed)

    def _declare(self, args: Any, logs: Mapping[str, Any]) -> Framework:
        assert self._recorder is not None
        framework = detect_framework(logs) or UNKNOWN_TRAINER
        estimator = getattr(args, "kl_estimator", None)
        series = declare_series(framework, temperature=getattr(args, "temperature", None), estimator=estimator)
        self._recorder.declare_series(series, framework=framework.name, algorithm=framework.algorithm)
        self._run = self._recorder.run
        say(describe_view(self._run, has_heldout="heldout_score" in logs, store=self._recorder.store_url))
        return framework

    def _enforce(self, finding: Finding, control: TrainerControl) -> None:
        """Once an episode: a checkpoint at each of its steps would fill the disk."""
        action = find_due_action(finding)
        if action is None or finding.id in self._enforced:
            return
        self._enforced.add(finding.id)
        if action in ("save_checkpoint", "stop"):
            control.should_save = True
        if action == "stop":
            control.should_training_stop = True
            self._stop = finding


def is_step(logs: Mapping[str, Any]) -> bool:
    """Whether logs are those of a training step, and not an evaluation or the summary at the end."""
    return not END_OF_TRAINING & logs.keys() and not any(key.startswith(EVALUATION) for key in logs)


def describe_view(run: Run, *, has_heldout: bool, store: str) -> str:
    """One line that says what klaudit sees: `objective/kl: k1, nats per sequence, temperature 0.7; beta 0.05; no held-out score`."""
    series = run.series[PRIMARY]
    if series.kind == "unknown":
        kl = "no KL to the reference among the keys that this trainer logs"
    else:
        temperature = "unknown temperature" if series.temperature is None else f"temperature {series.temperature:g}"
        kl = f"{series.source_key}: {series.estimator}, {series.unit.replace('_', ' ')}, {temperature}"
    beta = "beta not seen" if run.beta is None else f"beta {run.beta:g}"
    return f"run {run.name!r} -> {store}; {kl}; {beta}; {'held-out score' if has_heldout else 'no held-out score'}"


def find_beta(args: Any) -> float | None:
    """The KL coefficient of a trainer's arguments: `kl_coef` of TRL's PPOConfig, `beta` elsewhere."""
    for name in ("kl_coef", "beta"):
        value = getattr(args, name, None)
        if isinstance(value, (int, float)):
            return float(value)
    return None


def find_batch_size(args: Any) -> int | None:
    """Sequences of one rollout: `batch_size` of PPO's arguments, else a rank's batch x ranks x accumulation."""
    batch_size = getattr(args, "batch_size", None)
    if isinstance(batch_size, int) and batch_size > 0:
        return batch_size
    per_device = getattr(args, "per_device_train_batch_size", None)
    if not isinstance(per_device, int):
        return None
    return per_device * int(getattr(args, "world_size", 1)) * int(getattr(args, "gradient_accumulation_steps", 1))


def name_model(model: Any) -> str | None:
    """The name or path that a model was loaded from."""
    config = getattr(model, "config", None)
    return getattr(config, "_name_or_path", None) or None
