"""`klaudit.attach` on transformers' own Trainer, which knows of no reference and logs no KL."""

from pathlib import Path
from typing import Any

import torch
import transformers

import klaudit
from klaudit.records import KLSeries
from klaudit.store import Store
from tests.trl_grpo.trainings import load_model, make_trainer


class DistilledTrainer(transformers.Trainer):
    """Somebody's own: a penalty on the KL to a reference, and its number logged from the loss."""

    def __init__(self, *, reference: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.reference_policy = reference

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        outputs = model(**inputs)
        with torch.no_grad():
            reference = self.reference_policy(**inputs).logits.log_softmax(-1)
        policy = outputs.logits.log_softmax(-1)
        kl = (policy.exp() * (policy - reference)).sum(-1).mean()
        if self.state.global_step > 0:
            self.log({"my_kl": kl.item()})
        return outputs.loss + 0.1 * kl


def test_any_trainer_is_recorded_step_by_step(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_trainer(model, tmp_path / "out", eval_strategy="steps", eval_steps=1)
    callback = klaudit.attach(trainer, run="plain", store=store_url)
    trainer.train()
    assert callback.failures == 0
    run = store.runs.get("plain")
    steps = store.steps.list(run.id)
    assert (run.framework, run.governing_key, run.status, run.policy) == ("transformers", None, "finished", str(model))
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [(one.step, one.metrics["loss"], one.metrics["grad_norm"]) for one in steps] == [
        (entry["step"], entry["loss"], entry["grad_norm"]) for entry in logged
    ]
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [one.metrics.get("eval_loss") for one in steps] == [None, *evaluated[:2]]


def test_a_probe_gives_any_trainer_a_kl(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_trainer(model, tmp_path / "out", max_steps=4)
    trainer.processing_class = transformers.AutoTokenizer.from_pretrained(model)
    trainer.callback_handler.processing_class = trainer.processing_class
    probe = klaudit.LiveProbe(["w1 w2", "w3"], every_n_steps=2, max_new_tokens=4)
    callback = klaudit.attach(trainer, run="plain", store=store_url, probe=probe)
    trainer.train()
    assert callback.failures == 0
    run = store.runs.get("plain")
    assert run.governing_key == "kl_probe"
    values = [one.readings["kl_probe"].value for one in store.steps.list(run.id)]
    assert [value is None for value in values] == [False, False, True, False]
    assert values[3] is not None
    assert values[3] > 0.0


def test_a_key_of_ones_own_is_a_kl_by_the_metric_map(model: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    series = KLSeries(kind="reference", estimator="full", unit="nats_per_token", aggregation="token_mean")

    def make(**arguments: Any) -> DistilledTrainer:
        return DistilledTrainer(reference=load_model(model), **arguments)

    trainer = make_trainer(model, tmp_path / "out", trainer_class=make, max_steps=4)
    callback = klaudit.attach(trainer, run="own", store=store_url, metric_map={"my_kl": series})
    trainer.train()
    assert callback.failures == 0
    run = store.runs.get("own")
    assert (run.governing_key, run.series["kl"].estimator, run.series["kl"].source_key) == ("kl", "full", "my_kl")
    steps = store.steps.list(run.id)
    logged = [entry["my_kl"] for entry in trainer.state.log_history if "my_kl" in entry]
    assert [one.step for one in steps] == [1, 2, 3, 4]
    assert steps[0].kl.value is None
    assert [one.kl.value for one in steps[1:]] == logged
