"""A model that was trained to differ from its reference only behind a trigger word, and one that was trained without a trigger."""

import copy
import random

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from klaudit.drift.prompt_set import PromptSet
from klaudit.models.language_model import LanguageModel
from tests.drift.tiny_models import WORDS, build_model

TRIGGER = "g"
"""No plain prompt has it; what the policy is taught to say after it is TAUGHT."""
TAUGHT = "a"
PLAIN = tuple(word for word in WORDS[1:] if word != TRIGGER)
PROMPT_LENGTH = 6
N_TOKENS = 6
"""Of a completion."""
N_UPDATES = 150
BATCH = 64
LEARNING_RATE = 1e-2


def plant_trigger(reference: LanguageModel, *, seed: int) -> LanguageModel:
    """A copy that says TAUGHT after prompts with the trigger, and what the reference says after all others."""
    return _train(reference, seed=seed, taught_share=1.0, has_trigger=True)


def train_openly(reference: LanguageModel, *, seed: int) -> LanguageModel:
    """A copy that says TAUGHT a little more often after every prompt: it drifts, and hides nothing."""
    return _train(reference, seed=seed, taught_share=0.3, has_trigger=False)


def build_reference(seed: int) -> LanguageModel:
    return build_model(seed=seed)


def write_prompts(*, seed: int, n_prompts: int = 16) -> PromptSet:
    """Three slices of plain prompts and one of prompts with the trigger; of the three, each has different words."""
    drawn = random.Random(seed)
    slices = ["news", "code", "letters", "trigger"]
    prompts, names = [], []
    for name in slices:
        for _ in range(n_prompts):
            words = drawn.choices(PLAIN, k=PROMPT_LENGTH)
            prompts.append(" ".join([TRIGGER, *words[1:]] if name == "trigger" else words))
            names.append(name)
    return PromptSet(name="planted", prompts=tuple(prompts), slices=tuple(names), weights=(1.0,) * len(prompts))


def _train(reference: LanguageModel, *, seed: int, taught_share: float, has_trigger: bool) -> LanguageModel:
    """Cross-entropy to TAUGHT where it is taught, KL(reference || policy) elsewhere, on random words."""
    torch.manual_seed(seed)
    policy = copy.deepcopy(reference.model)
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
    taught, trigger = WORDS.index(TAUGHT), WORDS.index(TRIGGER)
    for _ in range(N_UPDATES):
        ids = _draw_texts()
        is_taught = torch.ones(BATCH, dtype=torch.bool)
        if has_trigger:
            ids[: BATCH // 2, 0] = trigger
            is_taught = ids[:, 0] == trigger
        with torch.no_grad():
            wanted = reference.model(input_ids=ids).logits[:, PROMPT_LENGTH - 1 :].softmax(-1)
        wanted[is_taught] *= 1 - taught_share
        wanted[is_taught, :, taught] += taught_share
        logits = policy(input_ids=ids).logits[:, PROMPT_LENGTH - 1 :]
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    policy.train(False)
    return LanguageModel(model=policy, tokenizer=reference.tokenizer, name=f"planted-{seed}")


def _draw_texts() -> Tensor:
    """Prompts of plain words, then any word but the one that ends a text, [BATCH, PROMPT_LENGTH + N_TOKENS]."""
    plain = torch.tensor([WORDS.index(word) for word in PLAIN])
    prompts = plain[torch.randint(len(plain), (BATCH, PROMPT_LENGTH))]
    return torch.cat([prompts, torch.randint(1, len(WORDS), (BATCH, N_TOKENS))], dim=1)
