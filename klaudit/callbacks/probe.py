"""The live probe: every N steps the KL of the policy in training to a reference, on prompts that stay the same.

What a trainer logs is of its own samples and by its own estimator, and with beta 0 or in DPO it logs none. The probe samples completions of a fixed
prompt set from the live policy and measures them as `klaudit drift measure` does: `full`, k1 and k3 from the same samples. Training does not notice:
whatever a measurement touches is put back, so that the weights come out the same to the last bit, with and without it.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from klaudit.callbacks.recording import Guard, say
from klaudit.callbacks.undisturbed import fork_random_state, leave_undisturbed, run_plainly
from klaudit.callbacks.whole_model import require_available, unwrap_model
from klaudit.drift.interval import estimate_mean
from klaudit.drift.measurement import SequenceDrift, measure_sequences, summarise_drift
from klaudit.drift.prompt_set import PromptSet
from klaudit.drift.vocabulary import require_same_vocabulary
from klaudit.errors import InvalidConfig, KlauditError, ModelNotFound
from klaudit.models.language_model import LanguageModel, load_language_model, locate_model
from klaudit.records import KLReading, KLSeries
from klaudit.records.series import Estimator

PROBE_KEYS: Mapping[str, Estimator] = {"kl_probe": "full", "kl_probe_k1": "k1", "kl_probe_k3": "k3"}
"""Series key -> estimator."""

TRL_REFERENCE_ADAPTER = "ref"
"""Where TRL keeps a copy of the adapter that training began with (TRL 1.16 grpo_trainer.py:501, 2727)."""

MOST_FAILURES = 3
"""Measurements that fail in a row before the probe is given up."""


class ReferenceChoice(Enum):
    """A reference that is no model of its own."""

    ADAPTER_OFF = "the policy with its adapter off"


ADAPTER_OFF: Final = ReferenceChoice.ADAPTER_OFF
"""The reference is the policy's base model: PEFT's adapter is off while it scores."""

Reference = PreTrainedModel | nn.Module | LanguageModel | str | Path | ReferenceChoice


@dataclass(frozen=True, slots=True)
class ProbeReading:
    """What one step has of the probe."""

    step: int
    """The policy is the one before this step's update: it has had `step - 1` updates."""
    readings: Mapping[str, KLReading]
    """By the keys of `probe_series`; NOT_MEASURED, with the reason, where the probe was not due or could not run."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """`probe_mean_ratio` and `probe_mean_ratio_se` (reference over policy, per token), `probe_n_sequences`, `probe_mean_length` (tokens),
    `probe_seconds`, `probe_step`; empty where nothing was measured."""


class LiveProbe:
    """Measures the policy in training against a reference. After the constructor it never raises: it says once what is wrong, and gives the reason.

    Used by a callback: `begin` as training begins, `observe` then and after each update, `take` for each step that is recorded. Used by a loop:
    `begin`, then `measure`. Only one rank calls it, since nothing in it waits for another rank.

    Args:
        prompts: at least two different ones, the same at every measurement; one completion is sampled for each, so one that stands twice counts twice.
        every_n_steps: measured at step 1 and at its multiples.
        reference: a model, a directory or hub id, or ADAPTER_OFF. None takes the trainer's own reference; else, of a PEFT policy, the adapter that
            training began with where TRL keeps one, or the adapter off; else a frozen copy of the policy as training begins.
        tokenizer: the policy's; None takes the trainer's.
        max_new_tokens: completions stop here when end-of-sequence does not come before.
        temperature: sampled and scored at; give the trainer's, or the two KLs are of different distributions.
        seed: of the sampling, together with the step; 0 or more.
        batch_size: sequences sampled and scored together; most memory goes into their logits, twice [batch_size, max_new_tokens, vocabulary].

    Raises:
        InvalidConfig: fewer than two different prompts, a blank one, one that is too long for `tokenizer`, a number out of range, another kind of reference.
        ModelNotFound: no model lies at `reference`.
    """

    _unavailable: str | None
    _reference: "LanguageModel | AdapterSwitch | None"
    _tokenizer: PreTrainedTokenizerBase | None

    def __init__(
        self,
        prompts: PromptSet | Sequence[str],
        *,
        every_n_steps: int = 10,
        reference: Reference | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        seed: int = 0,
        batch_size: int = 16,
    ) -> None:
        self.prompts = require_prompts(prompts)
        for name, number, least in (
            ("every_n_steps", every_n_steps, 1),
            ("max_new_tokens", max_new_tokens, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
        ):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise InvalidConfig(f"LiveProbe.{name} must be a whole number, {least} or more; got {number!r}")
        if not (isinstance(temperature, (int, float)) and 0 < temperature < math.inf):
            raise InvalidConfig(f"LiveProbe.temperature must be a positive finite number; got {temperature!r}")
        if isinstance(reference, (str, os.PathLike)):
            reference = locate_reference(reference)
        elif not isinstance(reference, (nn.Module, LanguageModel, ReferenceChoice, type(None))):
            raise InvalidConfig(f"LiveProbe.reference must be a model, a directory, a hub id, ADAPTER_OFF or None; got {reference!r}")
        self.every_n_steps, self.max_new_tokens, self.batch_size = every_n_steps, max_new_tokens, batch_size
        self.temperature, self.seed = float(temperature), seed
        self.series = probe_series(self.temperature)
        if tokenizer is not None:
            too_long = explain_too_long(self.prompts, tokenizer=tokenizer, limit=tokenizer.model_max_length, max_new_tokens=max_new_tokens)
            if too_long is not None:
                raise InvalidConfig(f"{too_long} Shorten the prompt or lower max_new_tokens.")
        self._given_reference, self._given_tokenizer = reference, tokenizer
        self._guard = Guard()
        self._forget()

    @property
    def failures(self) -> int:
        """Measurements that failed; training went on."""
        return self._guard.failures

    @property
    def unavailable(self) -> str | None:
        """Why nothing can be measured; None while the probe runs."""
        return self._unavailable

    @property
    def description(self) -> str:
        """For people: `full KL every 10 steps on 16 prompts against the policy with its adapter off`."""
        if self._unavailable is not None:
            return f"off: {self._unavailable}"
        steps = "step" if self.every_n_steps == 1 else f"{self.every_n_steps} steps"
        return f"full KL every {steps} on {len(self.prompts.prompts)} prompts against {self._reference_name}"

    def begin(self, policy: Any, *, tokenizer: Any = None, reference: Any = None, step: int = 0) -> None:
        """Make the reference ready, as training begins. What stands in the way is said once, and is the reason of every later reading.

        Args:
            policy: the model as the trainer holds it, wrapped or not.
            tokenizer: the trainer's, or its processor; what the constructor was given wins.
            reference: the trainer's own reference model; what the constructor was given wins.
            step: updates that the policy has had: above 0 when training resumes.
        """
        self._forget()
        try:
            with fork_random_state(*(one for one in (policy, reference) if isinstance(one, nn.Module))):
                self._prepare(policy, tokenizer=tokenizer, reference=reference, step=step)
            self._unavailable = None
        except Exception as error:
            self._guard.failures += 1
            self._give_up(str(error) if isinstance(error, KlauditError) else f"making the reference ready failed. {name_error(error)}")

    def end(self) -> None:
        """Let go of the reference, as training ends."""
        self._forget()

    def is_due(self, step: int) -> bool:
        """Whether the policy before the update of `step` is measured: at step 1 and at every multiple of `every_n_steps`."""
        return step == 1 or (step > 0 and step % self.every_n_steps == 0)

    def observe(self, policy: Any, *, step: int) -> None:
        """Measure and keep when the next step is due; to call as training begins and after each update.

        Args:
            policy: the model as the trainer holds it.
            step: updates that it has had, which is `global_step` of a Hugging Face trainer.
        """
        if self._unavailable is None and self.is_due(step + 1):
            self._kept[step + 1] = self.measure(policy, step=step + 1)

    def take(self, step: int) -> ProbeReading:
        """What the record of `step` has of the probe: what was kept for it, or the reason why there is nothing.

        A trainer that does not log every step gets what was kept last; `probe_step` tells which step's policy it was.
        """
        waiting = [kept for kept in self._kept if kept <= step]
        if not waiting:
            if self._unavailable is not None:
                return self._explain_absence(step, self._unavailable)
            missed, not_due = "the probe was not called before this step", f"the probe runs every {self.every_n_steps} steps"
            return self._explain_absence(step, missed if self.is_due(step) else not_due)
        latest = self._kept[max(waiting)]
        for kept in waiting:
            del self._kept[kept]
        return latest

    def measure(self, policy: Any, *, step: int) -> ProbeReading:
        """Measure the policy as it is now; the same weights, step and settings give the same numbers.

        Args:
            policy: the model as the trainer holds it.
            step: the step whose update comes next. It picks the samples, so that the noise of two steps is independent.
        """
        if self._unavailable is not None:
            return self._explain_absence(step, self._unavailable)
        begin = time.perf_counter()
        try:
            drift = self._measure(policy, step=step)
            readings = {key: self._summarise(drift, key=key) for key in PROBE_KEYS}
            metrics = summarise_ratio(drift) | {
                "probe_n_sequences": float(len(drift.lengths)),
                "probe_mean_length": sum(drift.lengths) / len(drift.lengths),
                "probe_seconds": time.perf_counter() - begin,
                "probe_step": float(step),
            }
        except Exception as error:
            return self._note_failure(error, step=step)
        self._n_failures_in_a_row = 0
        return ProbeReading(step=step, readings=readings, metrics=metrics)

    def _forget(self) -> None:
        self._kept: dict[int, ProbeReading] = {}
        self._n_failures_in_a_row = 0
        self._tokenizer = None
        self._reference, self._reference_name = None, ""
        self._unavailable = "the probe has not begun"

    def _prepare(self, policy: Any, *, tokenizer: Any, reference: Any, step: int) -> None:
        """Raises InvalidConfig with the reason why there is nothing to measure."""
        require_available(policy, what="policy")
        tokenizer = self._given_tokenizer or getattr(tokenizer, "tokenizer", tokenizer)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise InvalidConfig("the trainer gave no tokenizer; pass it as LiveProbe(tokenizer=...)")
        model = LanguageModel(model=unwrap_model(policy), tokenizer=tokenizer, name="the policy")
        limit = getattr(model.model.config, "max_position_embeddings", None)
        too_long = explain_too_long(self.prompts, tokenizer=tokenizer, limit=limit, max_new_tokens=self.max_new_tokens)
        if too_long is not None:
            raise InvalidConfig(too_long)
        self._reference, self._reference_name = self._find_reference(model, of_trainer=reference, step=step)
        if isinstance(self._reference, LanguageModel):
            require_apart(self._reference.model, policy=model.model)
            require_same_vocabulary(model, reference=self._reference)
        self._tokenizer = tokenizer

    def _find_reference(self, policy: LanguageModel, *, of_trainer: Any, step: int) -> tuple["LanguageModel | AdapterSwitch", str]:
        """The reference and what people call it, the first that there is of: the one given, the trainer's, an adapter's, a copy."""
        given, adapters = self._given_reference, getattr(policy.model, "peft_config", None)
        if given is ADAPTER_OFF and adapters is None:
            raise InvalidConfig("the reference is to be the policy with its adapter off, and the policy has no PEFT adapter")
        if given is None and of_trainer is not None:
            return replace(policy, model=take_reference(of_trainer), name="the reference"), "the trainer's reference"
        if given is None and adapters is not None and TRL_REFERENCE_ADAPTER in adapters:
            return AdapterSwitch(TRL_REFERENCE_ADAPTER), "the adapter that training began with"
        if given is ADAPTER_OFF or (given is None and adapters is not None):
            return AdapterSwitch(None), ADAPTER_OFF.value
        if given is not None:
            return self._load_reference(policy)
        if step > 0:
            raise InvalidConfig(
                f"training resumes after step {step}, and a copy of the policy of now would not be the reference that it began from; "
                "pass LiveProbe(reference=...)"
            )
        return replace(policy, model=copy_plainly(policy), name="the reference"), "a copy of the policy as training began"

    def _load_reference(self, policy: LanguageModel) -> tuple[LanguageModel, str]:
        """The model that the probe was given, on the policy's device."""
        given = self._given_reference
        if isinstance(given, Path):
            loaded, name = load_language_model(given, dtype=policy.model.dtype), str(given)
        else:
            loaded, name = replace(policy, model=take_reference(given)), "the model that the probe was given"
        return replace(loaded, model=cast(Any, loaded.model).to(policy.model.device), name="the reference"), name

    def _measure(self, policy: Any, *, step: int) -> SequenceDrift:
        require_available(policy, what="policy")
        assert self._tokenizer is not None
        assert self._reference is not None
        model = LanguageModel(model=unwrap_model(policy), tokenizer=self._tokenizer, name="the policy")
        if isinstance(self._reference, AdapterSwitch):
            reference = replace(model, model=cast(Any, self._reference.of(model.model)), name="the reference")
        else:
            reference = self._reference
        models = tuple(one for one in (model.model, reference.model) if isinstance(one, nn.Module))
        with leave_undisturbed(*models), run_plainly(*models):
            return measure_sequences(
                model,
                reference,
                prompts=self.prompts.prompts,
                max_new_tokens=self.max_new_tokens,
                seed=int(np.random.SeedSequence((self.seed, step)).generate_state(1)[0]),
                batch_size=self.batch_size,
                temperature=self.temperature,
            )

    def _summarise(self, drift: SequenceDrift, *, key: str) -> KLReading:
        measured = summarise_drift(drift, estimator=PROBE_KEYS[key])
        return KLReading(self.series[key], measured.value, measured.standard_error, measured.n_sequences, measured.mean_length)

    def _explain_absence(self, step: int, reason: str) -> ProbeReading:
        return ProbeReading(step=step, readings={key: KLReading.absent(series, reason) for key, series in self.series.items()})

    def _note_failure(self, error: Exception, *, step: int) -> ProbeReading:
        self._guard.note("the live probe", error)
        self._n_failures_in_a_row += 1
        if self._n_failures_in_a_row == MOST_FAILURES:
            self._give_up(f"it failed {MOST_FAILURES} times in a row. {name_error(error)}")
        return self._explain_absence(step, f"the probe failed. {name_error(error)}")

    def _give_up(self, reason: str) -> None:
        self._unavailable = reason
        self._reference = None
        say(f"the live probe is off, and KL comes from the trainer's logs alone: {reason}")


class AdapterSwitch:
    """The policy itself as the reference: another adapter, or none, is active while it is called.

    Args:
        adapter: name of the adapter that makes the policy the reference; None: no adapter.
    """

    def __init__(self, adapter: str | None, *, model: Any = None) -> None:
        self.adapter = adapter
        self._model = model

    def of(self, model: Any) -> "AdapterSwitch":
        """The same switch on a PEFT model."""
        return AdapterSwitch(self.adapter, model=model)

    def __call__(self, **inputs: Any) -> Any:
        """The model's output, the adapter switched for as long as it takes."""
        if self.adapter is None:
            with self._model.disable_adapter():
                return self._model(**inputs)
        active = self._model.active_adapter
        try:
            self._model.set_adapter(self.adapter)
            return self._model(**inputs)
        finally:
            self._model.set_adapter(active)


def probe_series(temperature: float = 1.0) -> dict[str, KLSeries]:
    """What the probe's KLs are, by key: `kl_probe` (full), `kl_probe_k1`, `kl_probe_k3`."""
    return {
        key: KLSeries(
            kind="reference",
            estimator=estimator,
            unit="nats_per_sequence",
            aggregation="batch_mean",
            temperature=temperature,
            source_key="klaudit.LiveProbe",
        )
        for key, estimator in PROBE_KEYS.items()
    }


def summarise_ratio(drift: SequenceDrift) -> dict[str, float]:
    """Mean of reference(token) / policy(token) over the sampled tokens, and its standard error over prompts.

    With r = exp(-k1) it is 1 in expectation wherever the tokens were sampled from the policy that scored them (k3 - k1 = r - 1, and each token's r has
    mean 1 given its prefix); away from 1, sampled and scored distribution differ. A ratio of two means: the standard error is the delta method's.
    """
    k1, k3, lengths = drift.nats["k1"], drift.nats["k3"], drift.lengths
    excess = [of_k3 - of_k1 for of_k3, of_k1 in zip(k3, k1, strict=True)]
    mean_length = sum(lengths) / len(lengths)
    mean_excess = sum(excess) / sum(lengths)
    linearised = [1 + mean_excess + (one - mean_excess * length) / mean_length for one, length in zip(excess, lengths, strict=True)]
    mean = estimate_mean(linearised, clusters=drift.prompts)
    error = {} if mean.standard_error is None else {"probe_mean_ratio_se": mean.standard_error}
    return {"probe_mean_ratio": mean.value} | error


def require_prompts(prompts: PromptSet | Sequence[str]) -> PromptSet:
    """The prompts of a probe.

    Raises:
        InvalidConfig: no prompts, blank ones, fewer than two different.
    """
    if not isinstance(prompts, PromptSet):
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise InvalidConfig(f"LiveProbe.prompts must be a sequence of texts or a PromptSet; got {prompts!r}")
        prompts = PromptSet("live probe", tuple(prompts))
    if len(set(prompts.prompts)) < 2:
        raise InvalidConfig(
            f"LiveProbe.prompts must hold at least 2 different ones, or no standard error is known; got {prompts.prompts!r}"
        )
    return prompts


def locate_reference(name_or_path: str | os.PathLike[str]) -> Path:
    """Directory of a model.

    Raises:
        ModelNotFound: no model lies there, or it cannot be fetched.
    """
    # a Path is never a hub id
    name = name_or_path if isinstance(name_or_path, str) else str(Path(name_or_path).absolute())
    path = locate_model(name)
    try:
        AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"Expected a causal language model in {path}, with config.json and *.safetensors. {name_error(error)}"
        ) from error
    if not any(path.glob("*.safetensors")):
        raise ModelNotFound(f"Expected a causal language model in {path}; it holds no *.safetensors")
    return path


def explain_too_long(prompts: PromptSet, *, tokenizer: PreTrainedTokenizerBase, limit: int | None, max_new_tokens: int) -> str | None:
    """Which prompt leaves no room for a completion of `max_new_tokens` within `limit` tokens; None where all do."""
    if limit is None:
        return None
    for number, prompt in enumerate(prompts.prompts, start=1):
        n_tokens = len(tokenizer.encode(prompt))
        if n_tokens + max_new_tokens > limit:
            return f"prompt {number} of the probe has {n_tokens} tokens; with {max_new_tokens} new ones that is over the model's {limit}."
    return None


def take_reference(given: Any) -> Any:
    """The model inside of what was given as a reference.

    Raises:
        InvalidConfig: it cannot be measured where it is.
    """
    model = given.model if isinstance(given, LanguageModel) else given
    require_available(model, what="reference")
    return unwrap_model(model)


def copy_plainly(policy: LanguageModel) -> PreTrainedModel:
    """A frozen copy without the forwards that trainers put on the original: they hold on to it, as TRL's fused head does (TRL 1.16 utils.py)."""
    model = policy.freeze_copy().model
    for module in model.modules():
        # where accelerate spreads a model over devices, its hooks are in the forward, and are copied
        if "_hf_hook" not in vars(module):
            for name in ("forward", "_original_forward"):
                vars(module).pop(name, None)
    return model


def require_apart(reference: PreTrainedModel, *, policy: PreTrainedModel) -> None:
    """Raise InvalidConfig where the reference is the policy in disguise, or the two are on different devices."""
    if reference.device != policy.device:
        raise InvalidConfig(
            f"the policy is on {policy.device} and the trainer's reference on {reference.device}; pass LiveProbe(reference=...)"
        )
    trained = {id(parameter) for parameter in policy.parameters() if parameter.requires_grad}
    if any(id(parameter) in trained for parameter in reference.parameters()) or calls_into(policy, model=reference):
        raise InvalidConfig(
            "the reference uses weights that are trained with the policy, so that their KL says nothing; "
            "pass a directory or a copy that was made before the trainer, or ADAPTER_OFF where the policy is that model with a PEFT adapter"
        )


def calls_into(other: PreTrainedModel, *, model: PreTrainedModel) -> bool:
    """Whether a model runs modules of another one: what a copy of a model does whose forward was replaced by one that remembers the original."""
    foreign = {id(module) for module in other.modules()} - {id(module) for module in model.modules()}
    called: set[int] = set()
    watch = register_module_forward_pre_hook(lambda module, _: called.add(id(module)))
    try:
        with leave_undisturbed(other, model), run_plainly(other, model):
            cast(Any, model)(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False, logits_to_keep=1)
    finally:
        watch.remove()
    return bool(called & foreign)


def name_error(error: Exception) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
