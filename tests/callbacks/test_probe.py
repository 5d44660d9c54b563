"""The live probe: what it measures, whose policy it is, and that training does not notice."""

import copy
import math
import random
import statistics
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

from klaudit.audit import audit_run
from klaudit.callbacks.probe import ADAPTER_OFF, MOST_FAILURES, LiveProbe, ProbeReading, probe_series
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig, ModelNotFound
from klaudit.models.language_model import LanguageModel
from klaudit.records import KLBudget, KLReading, KLSeries, Run, StepRecord
from tests.callbacks.trainings import make_trainer
from tests.drift.tiny_models import build_tokenizer
from tests.models.tiny import make_tiny_model
from tests.oracles.markov_lm import N_TOKENS, N_VOCABULARY, START, Array, make_markov_pair

PROMPTS = ("w1", "w2 w3", "w4 w5 w6", "w7", "w8 w9", "w10 w11 w12")
KEYS = {"kl_probe", "kl_probe_k1", "kl_probe_k3"}


def make_probe(prompts: Any = PROMPTS, **settings: Any) -> LiveProbe:
    return LiveProbe(prompts, **({"max_new_tokens": 6, "every_n_steps": 2, "batch_size": 4} | settings))


@torch.no_grad()
def disturb(language_model: LanguageModel, *, by: float = 0.05) -> LanguageModel:
    """A copy somewhat away from the model."""
    moved = language_model.freeze_copy()
    generator = torch.Generator().manual_seed(1)
    for weights in moved.model.parameters():
        weights.add_(by * torch.randn(weights.shape, generator=generator))
        weights.requires_grad_(True)
    return moved


def begin(probe: LiveProbe, policy: LanguageModel, **arguments: Any) -> LiveProbe:
    probe.begin(policy.model, tokenizer=policy.tokenizer, **arguments)
    return probe


def values_of(reading: ProbeReading) -> dict[str, float | None]:
    return {key: one.value for key, one in reading.readings.items()}


def reasons_of(reading: ProbeReading) -> set[str | None]:
    return {one.not_measured for one in reading.readings.values()}


# --- what it measures


class MarkovModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The oracle as a model: its token i is i + 1 here, and 0 ends a text but never comes."""

    config_class = LlamaConfig

    def __init__(self, logits: Array) -> None:
        super().__init__(
            LlamaConfig(vocab_size=N_VOCABULARY + 1, num_hidden_layers=1, hidden_size=2, num_attention_heads=1, eos_token_id=0)
        )
        table = torch.zeros(N_VOCABULARY + 1, N_VOCABULARY + 1)
        table[:, 0] = -torch.inf
        table[1:, 1:] = torch.from_numpy(logits)
        self.table = nn.Parameter(table)

    def forward(self, input_ids: Tensor, logits_to_keep: int, past_key_values: Any = None, **_: Any) -> CausalLMOutput:
        if past_key_values is not None:
            # a chain has nothing to remember, and a model that remembers nothing is not sampled from
            nothing = torch.zeros(len(input_ids), 1, input_ids.shape[1], 2)
            past_key_values.update(nothing, nothing, 0)
        logits: Any = self.table[input_ids][:, -logits_to_keep:]
        return CausalLMOutput(logits=logits, hidden_states=(logits,))


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_exact_kl_of_the_oracle_lies_within_the_interval_of_every_estimator(sigma: float) -> None:
    pair = make_markov_pair(sigma)
    prompts = tuple(f"t{i % 16} t{i // 16} t{START}" for i in range(192))
    probe = LiveProbe(prompts, reference=MarkovModel(pair.reference_logits), max_new_tokens=N_TOKENS, batch_size=96)
    probe.begin(MarkovModel(pair.policy_logits), tokenizer=build_tokenizer(("</s>", *(f"t{i}" for i in range(N_VOCABULARY)))))
    reading = probe.measure(MarkovModel(pair.policy_logits), step=1)
    for key in KEYS:
        one = reading.readings[key]
        assert one.value is not None
        assert one.standard_error is not None
        assert abs(one.value - pair.exact_kl()) < 2.5 * one.standard_error
        assert (one.n_sequences, one.mean_length) == (192, N_TOKENS)
    assert reading.readings["kl_probe"].effective_standard_error < reading.readings["kl_probe_k1"].effective_standard_error  # type: ignore[operator]
    assert abs(reading.metrics["probe_mean_ratio"] - 1) < 2.5 * reading.metrics["probe_mean_ratio_se"]


def test_a_policy_equal_to_its_reference_measures_zero_and_never_less(tiny: LanguageModel) -> None:
    reading = begin(make_probe(), tiny).measure(tiny.model, step=1)
    assert 0 <= reading.readings["kl_probe"].value < 1e-9  # type: ignore[operator]
    assert 0 <= reading.readings["kl_probe_k3"].value < 1e-9  # type: ignore[operator]
    assert reading.readings["kl_probe_k1"].value == pytest.approx(0, abs=1e-5)
    assert reading.metrics["probe_mean_ratio"] == pytest.approx(1, abs=1e-6)


def test_a_reading_says_what_it_is_and_what_it_cost(tiny: LanguageModel) -> None:
    probe = begin(make_probe(temperature=0.7), tiny)
    reading = probe.measure(disturb(tiny).model, step=4)
    assert {key: one.series for key, one in reading.readings.items()} == probe_series(0.7)
    full = reading.readings["kl_probe"]
    assert (full.series.kind, full.series.estimator, full.series.unit, full.series.direction) == (
        "reference",
        "full",
        "nats_per_sequence",
        "reverse",
    )
    assert (full.series.aggregation, full.series.temperature, full.n_sequences) == ("batch_mean", 0.7, len(PROMPTS))
    assert full.value is not None
    assert full.value > 0.01
    assert all(one.standard_error is not None for one in reading.readings.values())
    assert reading.metrics.keys() == {
        "probe_mean_ratio", "probe_mean_ratio_se", "probe_n_sequences", "probe_mean_length", "probe_seconds", "probe_step",
    }  # fmt: skip
    assert reading.metrics["probe_seconds"] > 0
    assert reading.metrics["probe_step"] == 4
    assert reading.metrics["probe_mean_length"] == full.mean_length


def test_the_mean_ratio_is_one_over_many_steps_and_its_error_is_what_it_scatters_by(tiny: LanguageModel) -> None:
    probe, policy = begin(make_probe(), tiny), disturb(tiny, by=0.02)
    readings = [probe.measure(policy.model, step=step).metrics for step in range(1, 41)]
    ratios = [one["probe_mean_ratio"] for one in readings]
    scatter = statistics.stdev(ratios)
    assert statistics.fmean(ratios) == pytest.approx(1, abs=3 * scatter / math.sqrt(40))
    assert statistics.fmean(one["probe_mean_ratio_se"] for one in readings) == pytest.approx(scatter, rel=0.5)


def test_the_same_step_gives_the_same_numbers_whatever_was_drawn_before_and_another_step_does_not(tiny: LanguageModel) -> None:
    policy = disturb(tiny)
    probe = begin(make_probe(), tiny)
    first = values_of(probe.measure(policy.model, step=3))
    torch.rand(100)
    assert values_of(probe.measure(policy.model, step=3)) == first
    assert values_of(begin(make_probe(), tiny).measure(policy.model, step=3)) == first
    assert values_of(probe.measure(policy.model, step=4)) != first
    assert values_of(begin(make_probe(seed=1), tiny).measure(policy.model, step=3)) != first


def test_broken_weights_give_numbers_that_are_not_finite_and_no_standard_error(tiny: LanguageModel) -> None:
    probe = begin(make_probe(), tiny)
    with torch.no_grad():
        tiny.model.get_parameter("model.norm.weight").fill_(math.nan)
    reading = probe.measure(tiny.model, step=1)
    assert all(one.value is not None and math.isnan(one.value) and one.standard_error is None for one in reading.readings.values())
    assert math.isnan(reading.metrics["probe_mean_ratio"])
    assert "probe_mean_ratio_se" not in reading.metrics


# --- against what


@pytest.fixture
def peft_policy(tiny: LanguageModel) -> Any:
    """The tiny model with a LoRA adapter that has been trained a little, dropout in it."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.3)
    model = get_peft_model(copy.deepcopy(tiny.model), config)
    train_adapter(model, seed=0)
    return model


@torch.no_grad()
def train_adapter(model: Any, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, weights in model.named_parameters():
        if "lora_" in name and weights.requires_grad:
            weights.copy_(0.3 * torch.randn(weights.shape, generator=generator))


@pytest.mark.parametrize("reference", [None, ADAPTER_OFF])
def test_the_reference_of_a_peft_policy_is_the_policy_with_its_adapter_off(tiny: LanguageModel, peft_policy: Any, reference: Any) -> None:
    probe, against_base = make_probe(reference=reference), make_probe(reference=tiny.model)
    for one in (probe, against_base):
        one.begin(peft_policy, tokenizer=tiny.tokenizer)
    off, base = (values_of(one.measure(peft_policy, step=1)) for one in (probe, against_base))
    assert off == pytest.approx(base, abs=1e-6)
    assert off["kl_probe"] > 0.001  # type: ignore[operator]
    assert probe.description == "full KL every 2 steps on 6 prompts against the policy with its adapter off"


def test_an_adapter_that_does_nothing_yet_measures_exactly_zero(tiny: LanguageModel) -> None:
    model = get_peft_model(tiny.model, LoraConfig(r=2, target_modules=["q_proj"]))
    probe = make_probe()
    probe.begin(model, tokenizer=tiny.tokenizer)
    assert set(values_of(probe.measure(model, step=1)).values()) == {0.0}


def test_where_trl_keeps_the_first_adapter_that_one_is_the_reference(tiny: LanguageModel, peft_policy: Any) -> None:
    peft_policy.add_adapter("ref", peft_policy.peft_config["default"])
    weights = dict(peft_policy.named_parameters())
    with torch.no_grad():
        for name, one in weights.items():
            if ".ref." in name:
                one.copy_(weights[name.replace(".ref.", ".default.")])
    probe = make_probe()
    probe.begin(peft_policy, tokenizer=tiny.tokenizer)
    assert set(values_of(probe.measure(peft_policy, step=1)).values()) == {0.0}
    train_adapter(peft_policy, seed=1)
    assert values_of(probe.measure(peft_policy, step=1))["kl_probe"] > 0.001  # type: ignore[operator]
    assert peft_policy.active_adapter == "default"


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("is_frozen", [False, True])
def test_adapters_are_as_they_were_also_after_an_exception(
    tiny: LanguageModel, peft_policy: Any, monkeypatch: pytest.MonkeyPatch, is_frozen: bool, fails: bool
) -> None:
    probe = make_probe()
    probe.begin(peft_policy, tokenizer=tiny.tokenizer)
    frozen = next(weights for name, weights in peft_policy.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(not is_frozen)
    before = [weights.requires_grad for weights in peft_policy.parameters()]
    if fails:
        calls = iter(range(100))

        def fail_at_the_reference(*_: Any, **__: Any) -> None:
            is_off = peft_policy.base_model.model.model.layers[0].self_attn.q_proj.disable_adapters
            if is_off and next(calls) >= 0:
                raise RuntimeError("out of memory")

        peft_policy.base_model.model.model.norm.register_forward_pre_hook(fail_at_the_reference)
    reading = probe.measure(peft_policy, step=1)
    assert (reading.readings["kl_probe"].value is None) == fails
    assert [weights.requires_grad for weights in peft_policy.parameters()] == before
    assert not peft_policy.base_model.model.model.layers[0].self_attn.q_proj.disable_adapters
    assert peft_policy.get_model_status().enabled is True


def test_a_directory_is_loaded_and_measured_as_the_same_model_in_memory(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    policy = disturb(tiny)
    readings = [
        values_of(begin(make_probe(reference=reference), policy).measure(policy.model, step=1))
        for reference in (tmp_path, str(tmp_path), tiny.model, tiny)
    ]
    assert all(one == pytest.approx(readings[0], abs=1e-5) for one in readings)
    assert readings[0]["kl_probe"] > 0.01  # type: ignore[operator]


def test_the_reference_given_goes_before_the_trainers_and_that_before_a_copy(tiny: LanguageModel) -> None:
    policy, other = disturb(tiny), disturb(tiny, by=0.2)
    given = begin(make_probe(reference=tiny.model), policy, reference=other.model)
    of_trainer = begin(make_probe(), policy, reference=tiny)
    copied = begin(make_probe(), policy)
    assert [one.description.split("against ")[1] for one in (given, of_trainer, copied)] == [
        "the model that the probe was given",
        "the trainer's reference",
        "a copy of the policy as training began",
    ]
    first, second, third = (values_of(one.measure(policy.model, step=1)) for one in (given, of_trainer, copied))
    assert first == second
    assert third["kl_probe"] < 1e-9  # type: ignore[operator]


def test_training_does_not_move_the_copy(tiny: LanguageModel) -> None:
    probe = begin(make_probe(), tiny)
    with torch.no_grad():
        tiny.model.get_parameter("model.norm.weight").mul_(1.5)
    assert values_of(probe.measure(tiny.model, step=2))["kl_probe"] > 0.001  # type: ignore[operator]


def replace_forward(model: Any) -> None:
    """As TRL 1.16 does in add_fused_lm_head: the new forward remembers the old one, which is the original's in every copy."""
    original = model.forward

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        return original(*arguments, **named)

    model.forward = MethodType(forward, model)


def test_a_copy_of_a_policy_whose_forward_the_trainer_replaced_uses_its_own_weights(tiny: LanguageModel) -> None:
    replace_forward(tiny.model)
    probe = begin(make_probe(), tiny)
    assert probe.measure(tiny.model, step=1).readings["kl_probe"].value == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        tiny.model.get_parameter("model.norm.weight").mul_(1.5)
    assert values_of(probe.measure(tiny.model, step=2))["kl_probe"] > 0.001  # type: ignore[operator]


def test_a_reference_that_runs_the_policy_is_found_out(tiny: LanguageModel) -> None:
    replace_forward(tiny.model)
    probe = begin(make_probe(reference=copy.deepcopy(tiny.model)), tiny)
    assert "the reference uses weights that are trained with the policy" in (probe.unavailable or "")


# --- whose policy it is


def test_due_are_the_first_step_and_every_multiple() -> None:
    assert [step for step in range(22) if make_probe(every_n_steps=10).is_due(step)] == [1, 10, 20]
    assert [step for step in range(4) if make_probe(every_n_steps=1).is_due(step)] == [1, 2, 3]


class Recorded(TrainerCallback):
    """Uses a probe as klaudit's callback does, and keeps what each logged step has of it."""

    def __init__(self, probe: LiveProbe) -> None:
        self.probe = probe
        self.taken: dict[int, ProbeReading] = {}
        self.weights: dict[int, dict[str, Tensor]] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.probe.begin(kwargs["model"], tokenizer=kwargs.get("processing_class"), step=state.global_step)
        self._observe(state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._observe(state, kwargs["model"])

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "train_runtime" not in kwargs["logs"]:
            self.taken[state.global_step] = self.probe.take(state.global_step)

    def _observe(self, state: Any, model: Any) -> None:
        self.probe.observe(model, step=state.global_step)
        self.weights[state.global_step] = {name: weights.clone() for name, weights in model.state_dict().items()}


def test_a_steps_reading_is_of_the_policy_before_its_update(tiny: LanguageModel, tmp_path: Path) -> None:
    reference = tiny.freeze_copy()
    recorded = Recorded(make_probe(reference=reference.model))
    trainer = make_trainer(tiny, tmp_path, max_steps=5)
    trainer.add_callback(recorded)
    trainer.train()
    assert [step for step, one in recorded.taken.items() if one.readings["kl_probe"].value is not None] == [1, 2, 4]
    assert reasons_of(recorded.taken[3]) == {"the probe runs every 2 steps"}
    assert recorded.taken[3].metrics == {}
    assert recorded.taken[1].readings["kl_probe"].value == pytest.approx(0, abs=1e-9)
    for step in (2, 4):
        policy = tiny.freeze_copy()
        policy.model.load_state_dict(recorded.weights[step - 1])
        measured = begin(make_probe(reference=reference.model), policy).measure(policy.model, step=step)
        assert values_of(measured) == values_of(recorded.taken[step])


def test_a_trainer_that_logs_seldom_gets_the_last_reading_and_its_step(tiny: LanguageModel) -> None:
    probe = begin(make_probe(), tiny)
    for step in range(6):
        probe.observe(tiny.model, step=step)
    assert probe.take(5).metrics["probe_step"] == 4
    assert reasons_of(probe.take(5)) == {"the probe runs every 2 steps"}
    assert probe.take(6).metrics["probe_step"] == 6
    assert reasons_of(probe.take(8)) == {"the probe was not called before this step"}


def test_a_log_before_the_end_of_its_step_does_not_take_the_next_steps_reading(tiny: LanguageModel) -> None:
    probe = begin(make_probe(), tiny)
    probe.observe(tiny.model, step=1)
    assert reasons_of(probe.take(1)) == {"the probe was not called before this step"}
    assert probe.take(2).step == 2


# --- training does not notice


def train_embedded(output_dir: Path, probe: LiveProbe | None) -> dict[str, Tensor]:
    tiny = make_tiny_model()
    trainer = make_trainer(tiny, output_dir, max_steps=6)
    if probe is not None:
        trainer.add_callback(Recorded(probe))
    trainer.train()
    return tiny.model.state_dict() | {"generator": trainer.training.generator.get_state(), "global": torch.get_rng_state()}


def require_identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if first[name].numpy().tobytes() != second[name].numpy().tobytes()] == []


def test_the_embedded_ppo_ends_with_the_same_weights_to_the_last_bit(tmp_path: Path) -> None:
    torch.manual_seed(5)
    without = train_embedded(tmp_path, None)
    torch.manual_seed(5)
    probe = make_probe(every_n_steps=1)
    require_identical(without, train_embedded(tmp_path, probe))
    assert probe.failures == 0


def train_hugging_face(output_dir: Path, probe: LiveProbe | None, **settings: Any) -> dict[str, Tensor]:
    """Dropout, gradient checkpointing, shuffling, and a collator that draws from every generator."""
    language_model = make_tiny_model()
    model: Any = get_peft_model(language_model.model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.2))
    train_adapter(model, seed=3)

    def collate(rows: list[Any]) -> dict[str, Tensor]:
        shift = random.randrange(40) + int(np.random.randint(40)) + int(torch.randint(15, ()))
        ids = torch.tensor([row["ids"] for row in rows]) + shift % 60
        return {"input_ids": ids, "labels": ids}

    arguments = TrainingArguments(
        output_dir=str(output_dir), max_steps=4, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-2,
        logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, seed=7,
        activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": False}, remove_unused_columns=False, **settings,
    )  # fmt: skip
    rows: Any = [{"ids": [1 + i, 2 + i, 3 + i, 4 + i]} for i in range(32)]
    callbacks: list[TrainerCallback] = [] if probe is None else [Recorded(probe)]
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collate,
        processing_class=language_model.tokenizer,
        callbacks=callbacks,
    )
    trainer.train()
    return {name: weights.detach().clone() for name, weights in model.state_dict().items()} | {"global": torch.get_rng_state()}


@pytest.mark.parametrize("bf16", [False, True])
def test_a_hugging_face_trainer_ends_with_the_same_weights_to_the_last_bit(tmp_path: Path, bf16: bool) -> None:
    probe = make_probe(every_n_steps=1)
    require_identical(train_hugging_face(tmp_path, None, bf16=bf16), train_hugging_face(tmp_path, probe, bf16=bf16))
    assert probe.failures == 0


def test_autocast_of_the_trainer_does_not_round_the_measurement(tiny: LanguageModel, tmp_path: Path) -> None:
    """Accelerate leaves its autocast in the policy's forward; the reference has none."""
    policy: Any = disturb(tiny)
    plain = begin(make_probe(reference=tiny.model), policy)
    arguments = TrainingArguments(output_dir=str(tmp_path), bf16=True, use_cpu=True, report_to="none")
    prepared = Trainer(model=policy.model, args=arguments).accelerator.prepare(policy.model)
    ids = torch.tensor([[1, 2, 3]])
    assert not torch.equal(prepared(input_ids=ids).logits, policy.model._original_forward(input_ids=ids).logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = values_of(plain.measure(prepared, step=1))
    assert "_original_forward" in vars(policy.model)
    assert rounded == values_of(begin(make_probe(reference=tiny.model), disturb(tiny)).measure(disturb(tiny).model, step=1))


# --- what stands in the way is a reason, never an exception


def fake_sharding(model: nn.Module, **attributes: Any) -> None:
    for name, value in attributes.items():
        setattr(next(model.parameters()), name, value)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"ds_id": 0, "ds_status": "NOT_AVAILABLE"}, "DeepSpeed ZeRO-3"), ({"device_mesh": None, "placements": ()}, "distributed tensors")],
)
def test_sharded_weights_turn_the_probe_off_and_the_reason_is_said_once(
    tiny: LanguageModel, attributes: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_sharding(tiny.model, **attributes)
    probe = begin(make_probe(), tiny)
    for step in range(4):
        probe.observe(tiny.model, step=step)
        (stated,) = reasons_of(probe.take(step + 1))
        assert stated is not None
        assert reason in stated
    assert probe.unavailable == stated
    assert probe.description == f"off: {stated}"
    assert probe.failures == 1
    assert capsys.readouterr().err.count("live probe is off") == 1


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (lambda tiny: {"reference": tiny.model}, "the reference uses weights that are trained"),
        (lambda tiny: {"reference": nn.Linear(2, 2)}, "the reference cannot be measured here: expected a causal language model"),
        (lambda tiny: {"step": 7}, "training resumes after step 7"),
        (lambda tiny: {"tokenizer": None}, "the trainer gave no tokenizer"),
        (lambda tiny: {"policy": nn.Linear(2, 2)}, "the policy cannot be measured here: expected a causal language model"),
        (lambda tiny: {"policy": None}, "expected a model; got NoneType"),
    ],
)
def test_what_cannot_be_measured_is_a_reason(tiny: LanguageModel, arrange: Callable[[LanguageModel], dict[str, Any]], reason: str) -> None:
    arguments: dict[str, Any] = {"policy": tiny.model, "tokenizer": tiny.tokenizer} | arrange(tiny)
    probe = make_probe()
    probe.begin(**arguments)
    assert probe.unavailable is not None
    assert reason in probe.unavailable
    assert reasons_of(probe.measure(tiny.model, step=1)) == {probe.unavailable}


def test_another_vocabulary_another_tokenizer_and_long_prompts_are_reasons(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    build_tokenizer(("</s>", "a", "b")).save_pretrained(tmp_path)
    other = begin(make_probe(reference=tmp_path), tiny)
    assert "must share a tokenizer" in (other.unavailable or "")
    small = MarkovModel(make_markov_pair(0.1).policy_logits)
    assert "must share a vocabulary; they have 100 and 33 tokens" in (begin(make_probe(reference=small), tiny).unavailable or "")
    long = begin(make_probe(max_new_tokens=126), tiny)
    assert long.unavailable == "prompt 3 of the probe has 3 tokens; with 126 new ones that is over the model's 128."


def test_a_learned_prompt_and_a_merged_adapter_are_reasons(tiny: LanguageModel, peft_policy: Any) -> None:
    prompted = get_peft_model(copy.deepcopy(tiny.model), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    peft_policy.merge_adapter()
    for model, reason in ((prompted, "learned prompt"), (peft_policy, "merged into the weights")):
        probe = make_probe()
        probe.begin(model, tokenizer=tiny.tokenizer)
        assert reason in (probe.unavailable or "")


def test_adapter_off_needs_an_adapter(tiny: LanguageModel) -> None:
    assert "has no PEFT adapter" in (begin(make_probe(reference=ADAPTER_OFF), tiny).unavailable or "")


def test_failures_are_counted_said_and_at_last_end_the_probe(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = begin(make_probe(), tiny)

    def fail(**_: Any) -> None:
        torch.rand(3)
        raise torch.OutOfMemoryError("no memory left\nfor 3 tensors")

    random_state, modes = torch.get_rng_state(), [module.training for module in tiny.model.modules()]
    monkeypatch.setattr(tiny.model, "forward", fail)
    for n in range(MOST_FAILURES):
        assert probe.unavailable is None
        assert reasons_of(probe.measure(tiny.model, step=n)) == {"the probe failed. OutOfMemoryError: no memory left"}
    assert (probe.failures, probe.unavailable) == (3, "it failed 3 times in a row. OutOfMemoryError: no memory left")
    assert reasons_of(probe.measure(tiny.model, step=9)) == {probe.unavailable}
    assert torch.equal(random_state, torch.get_rng_state())
    assert [module.training for module in tiny.model.modules()] == modes
    assert capsys.readouterr().err.count("klaudit: ") == 2


def test_a_probe_that_recovers_goes_on_and_one_that_ended_can_begin_again(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = begin(make_probe(), tiny)
    for _ in range(MOST_FAILURES):
        with monkeypatch.context() as broken:
            broken.setattr(tiny.model, "forward", None)
            assert probe.measure(tiny.model, step=1).readings["kl_probe"].value is None
        assert probe.measure(tiny.model, step=1).readings["kl_probe"].value is not None
    probe.end()
    assert reasons_of(probe.take(1)) == {"the probe has not begun"}
    assert begin(probe, tiny).unavailable is None


# --- what is refused before training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ()}, "at least one prompt"),
        ({"prompts": "w1"}, "sequence of texts"),
        ({"prompts": 3}, "sequence of texts"),
        ({"prompts": ("w1", "w1")}, "at least 2 different"),
        ({"prompts": ("w1", " ")}, "not blank"),
        ({"prompts": ("w1", None)}, "not blank"),
        ({"every_n_steps": 0}, "every_n_steps must be a whole number, 1 or more; got 0"),
        ({"every_n_steps": 1.5}, "every_n_steps"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"batch_size": True}, "batch_size"),
        ({"seed": -1}, "seed must be a whole number, 0 or more; got -1"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"reference": 3}, "reference must be a model, a directory"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        make_probe(**settings)


def test_a_reference_that_is_not_there_is_refused(tmp_path: Path, tiny: LanguageModel) -> None:
    for reference in (tmp_path / "nothing", str(tmp_path / "nothing"), Path("nothing"), tmp_path):
        with pytest.raises(ModelNotFound):
            make_probe(reference=reference)
    tiny.model.config.save_pretrained(tmp_path)
    with pytest.raises(ModelNotFound, match=r"no \*\.safetensors"):
        make_probe(reference=tmp_path)


def test_a_prompt_too_long_for_the_tokenizer_is_refused(tiny: LanguageModel) -> None:
    tiny.tokenizer.model_max_length = 8
    make_probe(("w1", "w2 w3"), tokenizer=tiny.tokenizer)
    with pytest.raises(InvalidConfig, match="prompt 3 of the probe has 3 tokens; with 6 new ones that is over the model's 8"):
        make_probe(tokenizer=tiny.tokenizer)


def test_a_prompt_set_is_taken_as_it_is() -> None:
    prompts = PromptSet("mine", ("w1", "w2"))
    assert make_probe(prompts).prompts is prompts


# --- what the audit makes of it

K1 = KLSeries(kind="reference", estimator="k1", unit="nats_per_sequence", aggregation="batch_mean", source_key="objective/kl")


def record_run(kls: Iterable[float], *, every_n_steps: int) -> tuple[Run, list[StepRecord]]:
    """A trainer that logs k1 each step, and a probe that measures the same KL now and then."""
    probe = make_probe(every_n_steps=every_n_steps)
    series = probe_series()
    run = Run(id="r", name="r", started_at=datetime.now(UTC), batch_size=16, series={"kl": K1, **series})
    steps = []
    for step, kl in enumerate(kls, start=1):
        readings = probe.take(step).readings
        if probe.is_due(step):
            readings = {key: KLReading(one, kl, standard_error=0.02 * kl, n_sequences=16, mean_length=20.0) for key, one in series.items()}
        steps.append(StepRecord(step=step, kl=KLReading(K1, kl, n_sequences=16), logged_at=datetime.now(UTC), readings=readings))
    return run, steps


def test_the_probe_governs_and_steps_in_between_raise_no_alarm() -> None:
    run, steps = record_run((0.5 * (1 - math.exp(-step / 60)) for step in range(200)), every_n_steps=10)
    audit = audit_run(run, steps, budgets=[KLBudget(1.0, "nats_per_sequence")])
    assert audit.governing_key == "kl_probe"
    assert audit.findings == ()
    assert (audit.coverage.steps, audit.coverage.kl_measured, audit.coverage.gaps) == (200, 21, 0)
    assert {one.code for one in audit.coverage.rules_not_run}.isdisjoint({"KLA101", "KLA201", "KLA302", "KLA303"})


def test_a_short_run_says_that_the_change_rule_had_too_few_readings() -> None:
    run, steps = record_run((0.001 * step for step in range(50)), every_n_steps=10)
    audit = audit_run(run, steps)
    assert audit.findings == ()
    (why,) = (one.why for one in audit.coverage.rules_not_run if one.code == "KLA201")
    assert why == "needs more than 12 finite readings of 'kl_probe' in one segment; the most was 6"


def test_a_breach_is_found_at_the_next_step_of_the_probe() -> None:
    run, steps = record_run((0.05 * step for step in range(1, 61)), every_n_steps=10)
    (finding,) = audit_run(run, steps, budgets=[KLBudget(1.2, "nats_per_sequence")]).findings
    assert (finding.code, finding.series, finding.detected_step) == ("KLA101", "kl_probe", 30)


def test_a_full_kl_of_the_trainers_own_goes_on_governing() -> None:
    full = KLSeries(kind="reference", estimator="full", unit="nats_per_sequence")
    assert Run(id="r", name="r", started_at=datetime.now(UTC), series={**probe_series(), "kl": full}).governing_key == "kl"
