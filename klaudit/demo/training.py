"""Train a recipe with klaudit attached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from klaudit.callbacks.attachment import attach
from klaudit.demo.lexicon import LexiconScore
from klaudit.demo.planting import plant_fault
from klaudit.demo.prompts import REVIEW_BEGINNINGS
from klaudit.demo.recipe import Recipe
from klaudit.errors import InvalidConfig, TrainingFailed
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.ppo.trainer import PPOTrainer
from klaudit.records import Run
from klaudit.store import open_store

OnStep = Callable[[int, dict[str, float]], None]
"""Called after each step with its number and what it logged."""

HELDOUT_REPETITION_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run that was trained and recorded."""

    run: Run
    output_dir: Path
    """Holds `checkpoint-N`."""
    failures: int
    """How often klaudit failed while training went on."""


class StepListener(TrainerCallback):
    """Tells a function of every step."""

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Pass the step on."""
        self._on_step(state.global_step, logs or {})


def train_recipe(
    recipe: Recipe,
    *,
    store: str,
    output_dir: Path,
    on_step: OnStep | None = None,
    resume_from: Path | None = None,
) -> TrainedRun:
    """Train, record and audit live.

    Args:
        recipe: what to train.
        store: URL of the store.
        output_dir: for the checkpoints.
        on_step: told of every step.
        resume_from: a checkpoint to go on from.

    Raises:
        ModelNotFound: the policy is not where the recipe says.
        InvalidConfig: a stop that is not one token.
        MissingExtra: torch, transformers or vaderSentiment is not installed.
        StoreError: the store cannot be used; nothing was trained.
        TrainingFailed: the run could not be recorded.
    """
    policy = load_language_model(recipe.policy)
    add_stops(policy, recipe.stops)
    trainer = PPOTrainer(
        policy,
        reference=None,
        score=LexiconScore("trained"),
        heldout_score=LexiconScore("heldout", repetition_penalty=HELDOUT_REPETITION_PENALTY),
        prompts=REVIEW_BEGINNINGS,
        config=recipe.ppo,
        output_dir=output_dir,
    )
    # Inside a training klaudit keeps its errors to itself, so the store is tried before it; and made last, when nothing else can be wrong.
    open_store(store, create=True).close()
    callback = attach(trainer, run=recipe.name, budget=recipe.budgets, store=store)
    if recipe.fault is not None:
        plant_fault(trainer, recipe.fault)
    if on_step is not None:
        trainer.add_callback(StepListener(on_step))
    try:
        trainer.train(resume_from=resume_from)
    except BaseException:
        callback.close(failed=True)
        raise
    if callback.run is None:
        raise TrainingFailed("the run was trained and not recorded: see the message of klaudit above")
    return TrainedRun(run=callback.run, output_dir=output_dir, failures=callback.failures)


def add_stops(language_model: LanguageModel, stops: Sequence[str]) -> None:
    """Let texts end at these tokens too, where samples are drawn as in the checkpoints.

    Raises:
        InvalidConfig: a stop that is not one token of the model.
    """
    encoded = {stop: language_model.tokenizer.encode(stop, add_special_tokens=False) for stop in stops}
    for stop, ids in encoded.items():
        if len(ids) != 1:
            raise InvalidConfig(f"a stop must be one token of {language_model.name}; got {stop!r}, which is {len(ids)}")
    if encoded:
        generation: Any = language_model.model.generation_config
        generation.eos_token_id = [*language_model.eos_token_ids, *(ids[0] for ids in encoded.values())]
