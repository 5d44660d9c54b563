"""How k1, k3 and full estimate one KL from the same samples of SmolLM2-135M-Instruct: `python tests/bench/estimator_study.py [--samples N]`.

Policies are the reference with noise on every weight, or checkpoints named with `--checkpoint`. Each samples completions; every estimator
then looks at the same ones. Writes docs/estimators.json, which docs/build.py makes the table of docs/estimators.md from. Some minutes on two cores.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from klaudit.demo.prompts import HELDOUT_BEGINNINGS
from klaudit.kl.estimators import estimate_k1, estimate_k3
from klaudit.kl.output_head import OutputHead
from klaudit.kl.tiled import measure_divergence
from klaudit.models import DEFAULT_MODEL
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.models.output_head import find_output_head
from klaudit.models.sampling import sample_completions
from klaudit.models.scoring import score_hidden
from klaudit.models.uniforms import draw_uniforms
from tests.bench.tables import Figures, print_table

RESULT = Path(__file__).parents[2] / "docs" / "estimators.json"
NOISES = (0.005, 0.02)
N_TOKENS = 32
BATCH = 16
"""Sequences whose mean a trainer would log."""
SAMPLED_TOGETHER = 64
SLICE = 128
"""Tokens whose logits are held at a time where a stored reference is imitated."""
N_BATCHES = 20_000
N_KEPT = 100
WITHIN = 0.1
Z = 1.959963985


@dataclass(frozen=True, slots=True)
class Samples:
    """Nats a sequence, one of each completion."""

    k1: tuple[float, ...]
    k3: tuple[float, ...]
    full: tuple[float, ...]
    kept: tuple[float, ...]
    """As `full`, from the reference's 100 likeliest tokens alone, the policy renormalised over the same."""
    bucketed: tuple[float, ...]
    """The same with all other tokens as one."""


def disturb(language_model: LanguageModel, *, noise: float, seed: int) -> None:
    """Multiply each weight by 1 plus normal noise."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in language_model.model.parameters():
        parameter.data.mul_(1 + noise * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def draw_samples(policy: LanguageModel, reference: LanguageModel, *, n: int, seed: int) -> Samples:
    """Completions of the policy, and what each estimator says of them."""
    heads = find_output_head(policy.model), find_output_head(reference.model)
    prompts = HELDOUT_BEGINNINGS.prompts
    asked = [prompts[number % len(prompts)] for number in range(n)]
    rows: list[tuple[float, ...]] = []
    for start in track(range(0, n, SAMPLED_TOGETHER), "samples", transient=True, console=Console(stderr=True)):
        texts = asked[start : start + SAMPLED_TOGETHER]
        uniforms = draw_uniforms([f"{seed} {start + number}" for number in range(len(texts))], n=N_TOKENS)
        rollout = sample_completions(policy, prompts=texts, max_new_tokens=N_TOKENS, uniforms=uniforms, head=heads[0])
        assert rollout.hidden is not None
        hidden = rollout.hidden[rollout.mask], score_hidden(reference.model, rollout=rollout)[rollout.mask]
        ids = rollout.completion_ids[rollout.mask]
        found = measure_divergence(hidden[0], heads[0], reference_hidden=hidden[1], reference_head=heads[1], token_ids=ids)
        assert found.policy_logprobs is not None
        assert found.reference_logprobs is not None
        per_token = [
            estimate(found.policy_logprobs, reference_logprobs=found.reference_logprobs) for estimate in (estimate_k1, estimate_k3)
        ]
        kept = [measure_kept((one, two), heads) for one, two in zip(*(torch.split(states, SLICE) for states in hidden), strict=True)]
        per_token += [found.full, *(torch.cat(parts) for parts in zip(*kept, strict=True))]
        rows += zip(*([float(one) for one in sum_sequences(values, mask=rollout.mask)] for values in per_token), strict=True)
    return Samples(*zip(*rows, strict=True))


def sum_sequences(values: Tensor, *, mask: Tensor) -> Tensor:
    """Nats a sequence of the counted tokens' nats."""
    return torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, values).sum(1)


def measure_kept(hidden: tuple[Tensor, Tensor], heads: tuple[OutputHead, OutputHead]) -> tuple[Tensor, Tensor]:
    """KL at each token when of the reference only its likeliest tokens were stored: renormalised, and with one bucket for the rest."""
    policy, reference = (head.project(states).double().log_softmax(-1) for states, head in zip(hidden, heads, strict=True))
    stored, ids = reference.topk(N_KEPT)
    chosen = policy.gather(1, ids)
    p, q = chosen.log_softmax(-1), stored.log_softmax(-1)
    rest_p, rest_q = (torch.log1p(-one.exp().sum(1).clamp(max=1 - 1e-15)) for one in (chosen, stored))
    bucketed = (chosen.exp() * (chosen - stored)).sum(1) + rest_p.exp() * (rest_p - rest_q)
    return (p.exp() * (p - q)).sum(1), bucketed


def list_policies(checkpoints: Sequence[Path], *, seed: int) -> Iterator[tuple[str, LanguageModel]]:
    """Each policy with what it is."""
    for noise in NOISES:
        policy = load_language_model(DEFAULT_MODEL)
        disturb(policy, noise=noise, seed=seed)
        yield f"{noise:.1%} noise on each weight", policy
    for path in checkpoints:
        yield f"a PPO checkpoint of `klaudit demo`, {path.name}", load_language_model(str(path))


def judge(name: str, samples: Samples) -> dict[str, Any]:
    """Figures of one policy."""
    variance_of_full = statistics.variance(samples.full)
    mean_of_full = statistics.fmean(samples.full)
    drawn = np.random.default_rng(0).integers(len(samples.full), size=(N_BATCHES, BATCH))
    rows = {}
    for estimator in ("k1", "k3", "full"):
        values = getattr(samples, estimator)
        mean, variance = statistics.fmean(values), statistics.variance(values)
        batches = np.asarray(values)[drawn].mean(axis=1)
        rows[estimator] = {
            "mean": mean,
            "half_width": Z * math.sqrt(variance / len(values)),
            "variance": variance,
            "variance_ratio": variance / variance_of_full,
            "negative_sequences": sum(one < 0 for one in values) / len(values),
            "negative_batches": float((batches < 0).mean()),
            "sequences_needed": math.ceil(variance * (Z / (WITHIN * mean_of_full)) ** 2),
        }
    biases = {name: statistics.fmean(getattr(samples, name)) / mean_of_full - 1 for name in ("kept", "bucketed")}
    return {"policy": name, "n_samples": len(samples.full), "estimators": rows, "bias_of_stored_reference": biases}


def main() -> int:
    """Write the figures and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0, help="of noise and samples")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="a trained policy; may be given several times")
    arguments = parser.parse_args()
    reference = load_language_model(DEFAULT_MODEL)
    found = []
    for name, policy in list_policies(arguments.checkpoint, seed=arguments.seed):
        found.append(judge(name, draw_samples(policy, reference, n=arguments.samples, seed=arguments.seed)))
        rows = [
            (name, *(f"{one[key]:.4g}" for key in ("mean", "half_width", "variance", "variance_ratio", "sequences_needed")))
            for name, one in found[-1]["estimators"].items()
        ]
        columns = ("estimator", "mean, nats/sequence", "+-", "variance", "x of full", "sequences for 10%")
        print_table(Figures(name, columns, rows), as_markdown=False)
    study = {
        "model": DEFAULT_MODEL,
        "n_tokens": N_TOKENS,
        "batch": BATCH,
        "n_kept": N_KEPT,
        "within": WITHIN,
        "seed": arguments.seed,
        "policies": found,
    }
    RESULT.write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
