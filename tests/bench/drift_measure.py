"""Tokens a CPU second of a drift measurement beside a straightforward script: `python tests/bench/drift_measure.py [--rounds N]`.

SmolLM2-135M-Instruct against itself with 2% of weight noise, KL(policy || reference) with the whole vocabulary, of the same prompts and as many
completions. The script does what one would write first: `generate`, then a forward of each model and two log-softmaxes, in batches of 32:
one run took 24.2 ms a token so, and 24.9 in batches of 64. klaudit has its own default.
One thread, whose own CPU time is what counts, so that a busy machine disturbs little; a round does all in an order of its own.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from klaudit.demo.prompts import HELDOUT_BEGINNINGS
from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.passages import read_passages
from klaudit.drift.plan import MeasurementSettings, ModelIdentity, plan_shards
from klaudit.drift.prompt_set import PromptSet
from klaudit.drift.shard import measure_shard
from klaudit.models import DEFAULT_MODEL
from klaudit.models.language_model import LanguageModel, load_language_model
from tests.bench.tables import Figures, print_table
from tests.drift.tiny_models import add_weight_noise

GOAL = 2.0
"""Times as many tokens a CPU second as the script."""
BATCH_SIZE = 32
"""Of the script."""
IDENTITY = ModelIdentity("model", f"sha256:{'0' * 64}", f"sha256:{'0' * 64}")


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured."""

    name: str
    prompts: PromptSet
    max_new_tokens: int


LOADS = (
    Load("16 beginnings of reviews, 16 new tokens", HELDOUT_BEGINNINGS, 16),
    Load("16 passages of 45 tokens, 16 new tokens", PromptSet("passages", read_passages().texts[:16]), 16),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measurement."""

    seconds: float
    """CPU time of the process."""
    n_tokens: int
    nats: float
    """Mean KL, nats per token: the two must agree up to chance."""

    @property
    def speed(self) -> float:
        """Completion tokens a CPU second."""
        return self.n_tokens / self.seconds


def measure(policy: LanguageModel, reference: LanguageModel, load: Load, *, n_samples: int) -> Outcome:
    """As `klaudit drift measure` does, the reverse direction."""
    settings = MeasurementSettings(max_new_tokens=load.max_new_tokens, samples_per_prompt=n_samples, forward=False)
    tasks = plan_shards(IDENTITY, IDENTITY, prompts=load.prompts, settings=settings)
    began_at = time.process_time()
    loaded = LoadedModel(policy), LoadedModel(reference)
    sequences = [one for task in tasks for one in measure_shard(*loaded, task).sequences]
    seconds = time.process_time() - began_at
    n_tokens = sum(map(len, sequences))
    return Outcome(seconds, n_tokens, sum(sum(one.full) for one in sequences) / n_tokens)


@torch.no_grad()
def measure_plainly(policy: LanguageModel, reference: LanguageModel, load: Load, *, n_samples: int) -> Outcome:
    """As one would write it first."""
    prompts = [prompt for prompt in load.prompts.prompts for _ in range(n_samples)]
    tokenizer: Any = policy.tokenizer
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.pad_token or tokenizer.eos_token
    models: list[Any] = [policy.model, reference.model]
    n_tokens, nats = 0, 0.0
    began_at = time.process_time()
    for start in range(0, len(prompts), BATCH_SIZE):
        inputs = tokenizer(prompts[start : start + BATCH_SIZE], return_tensors="pt", padding=True)
        n_prompt = inputs["input_ids"].shape[1]
        texts = models[0].generate(
            **inputs, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, repetition_penalty=1.0,
            max_new_tokens=load.max_new_tokens, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        completion = texts[:, n_prompt:]
        ended = torch.isin(completion, torch.tensor(policy.eos_token_ids)).cumsum(dim=1)
        counted = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=1) == 0
        mask = torch.cat([inputs["attention_mask"], counted.long()], dim=1)
        of_policy, of_reference = (
            torch.log_softmax(model(input_ids=texts, attention_mask=mask).logits[:, n_prompt - 1 : -1], dim=-1) for model in models
        )
        chosen = [one.gather(-1, completion[..., None])[..., 0] for one in (of_policy, of_reference)]
        per_token = (of_policy.exp() * (of_policy - of_reference)).sum(dim=-1)
        assert chosen[0].shape == per_token.shape
        n_tokens += int(counted.sum())
        nats += float(per_token[counted].sum())
    return Outcome(time.process_time() - began_at, n_tokens, nats / n_tokens)


METHODS: dict[str, Callable[..., Outcome]] = {"klaudit": measure, "script": measure_plainly}


def run_rounds(n_rounds: int, *, n_samples: int, seed: int) -> dict[str, dict[str, list[Outcome]]]:
    """Outcomes by load and method, one a round; one more round at the start is thrown away."""
    shuffle = random.Random(seed).shuffle
    reference = load_language_model(DEFAULT_MODEL)
    policy = add_weight_noise(reference, relative=0.02)
    outcomes: dict[str, dict[str, list[Outcome]]] = {load.name: {method: [] for method in METHODS} for load in LOADS}
    for warm_up in METHODS.values():
        warm_up(policy, reference, LOADS[0], n_samples=1)
    for _ in track(range(n_rounds), "rounds", transient=True, console=Console(stderr=True)):
        jobs = [(load, method) for load in LOADS for method in METHODS]
        shuffle(jobs)
        for load, method in jobs:
            outcomes[load.name][method].append(METHODS[method](policy, reference, load, n_samples=n_samples))
    return outcomes


def tabulate(outcomes: dict[str, dict[str, list[Outcome]]]) -> tuple[Figures, bool]:
    """Medians over the rounds, and whether the goal is met everywhere."""
    rows, is_met = [], True
    for name, methods in outcomes.items():
        ours, theirs = methods["klaudit"], methods["script"]
        ratio = statistics.median(one.speed / other.speed for one, other in zip(ours, theirs, strict=True))
        is_met = is_met and ratio >= GOAL
        speeds = (statistics.median(one.speed for one in some) for some in (ours, theirs))
        nats = (statistics.fmean(one.nats for one in some) for some in (ours, theirs))
        rows.append((name, *(f"{speed:,.0f}" for speed in speeds), f"{ratio:.2f}", f"at least {GOAL:g}", *(f"{one:.4f}" for one in nats)))
    columns = (
        "prompts",
        "klaudit tokens/CPU s",
        "script tokens/CPU s",
        "ratio",
        "goal",
        "klaudit nats/token",
        "script nats/token",
    )
    return Figures("Sampled and scored by both models, SmolLM2-135M-Instruct on one thread", columns, rows), is_met


def main() -> int:
    """Print the table; exits with 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4, help="completions a prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="every round's figures")
    output.add_argument("--markdown", action="store_true", help="the table of docs/performance.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = run_rounds(arguments.rounds, n_samples=arguments.samples, seed=arguments.seed)
    figures, is_met = tabulate(outcomes)
    if arguments.json:
        json.dump(
            {name: {method: [asdict(one) for one in some] for method, some in of.items()} for name, of in outcomes.items()}, sys.stdout
        )
    else:
        print_table(figures, as_markdown=arguments.markdown)
    return 0 if is_met else 1


if __name__ == "__main__":
    raise SystemExit(main())
