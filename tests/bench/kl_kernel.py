"""Time and memory of an exact KL from hidden states, klaudit beside others: `python -m tests.bench.kl_kernel [--rounds N] [--tokens N]`.

The floor is the two matrix products alone, each into one [tokens, vocabulary]. All variants take turns in one process, and a ratio is the median
over the rounds of ratios within a round; memory is the high water of a process of its own over its inputs. On a CPU run it with
OMP_NUM_THREADS=1: seconds are then those of the process on its core, whatever else the machine does. With a GPU everything is measured there.

Liger-Kernel's loss runs where it is installed (`make .venv-liger/liger.stamp`); it also takes the gradients, which a meter does not need.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from klaudit.kl.output_head import OutputHead
from klaudit.kl.tiled import measure_divergence
from tests.bench.tables import Figures, print_table

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CHUNK = 64
DRIFT = 0.05
SMALL_DRIFT = 2e-4
"""Of the hidden states, relative: a KL near 1e-7 nats a token."""
MOST_TIME = {"klaudit": 1.25, "klaudit, tiny drift": 2.2}
LEAST_MEMORY_RATIO = 40.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a problem."""

    n_vocabulary: int
    n_hidden: int
    n_tokens: int

    def __str__(self) -> str:
        return f"V {self.n_vocabulary:,}, hidden {self.n_hidden:,}, {self.n_tokens:,} tokens"


SHAPES = tuple(Shape(v, d, n) for v, n in ((49_152, 2048), (151_936, 512)) for d in (576, 2048))
"""Fewer tokens with the larger vocabulary, where naive alone would hold 9 GB at 2,048; that lowers the ratio of memory."""


@dataclass(frozen=True, eq=False, slots=True)
class Problem:
    """Hidden states and output matrices."""

    hidden: Tensor
    nearby: Tensor
    """Hidden states that have hardly moved."""
    policy: Tensor
    reference: Tensor


def make_problem(shape: Shape) -> Problem:
    """Random, with logits of a standard deviation of 3; nothing larger than a result is held on the way, for the sake of the high water."""
    torch.manual_seed(0)
    hidden = torch.randn(shape.n_tokens, shape.n_hidden, device=DEVICE)
    reference = torch.randn(shape.n_vocabulary, shape.n_hidden, device=DEVICE).mul_(3 / shape.n_hidden**0.5)
    policy = reference.clone()
    for part in policy.split(4096):  # type: ignore[no-untyped-call]
        part.add_(torch.randn_like(part), alpha=DRIFT * 3 / shape.n_hidden**0.5)
    return Problem(hidden, hidden + SMALL_DRIFT * torch.randn_like(hidden), policy, reference)


def multiply(problem: Problem) -> Tensor:
    """The floor."""
    policy, reference = problem.hidden @ problem.policy.T, problem.hidden @ problem.reference.T
    return policy[:, 0] + reference[:, 0]


def subtract_softmaxes(hidden: Tensor, problem: Problem) -> Tensor:
    """What one writes first."""
    p, q = (hidden @ problem.policy.T).log_softmax(-1), (hidden @ problem.reference.T).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def call_kl_div(problem: Problem) -> Tensor:
    """torch's own loss."""
    p, q = (problem.hidden @ problem.policy.T).log_softmax(-1), (problem.hidden @ problem.reference.T).log_softmax(-1)
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def loop_over_chunks(problem: Problem) -> Tensor:
    """Naive, some tokens at a time."""
    return torch.cat([subtract_softmaxes(problem.hidden[start : start + CHUNK], problem) for start in range(0, len(problem.hidden), CHUNK)])


def call_liger(problem: Problem) -> Tensor:
    """Its fused linear JSD loss, soft part alone."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # type: ignore[import-not-found]

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, compiled=False)
    labels = torch.zeros(len(problem.hidden), dtype=torch.int64, device=DEVICE)
    student, weight = problem.hidden.detach().requires_grad_(), problem.policy.detach().requires_grad_()
    found: Tensor = loss(student, weight, problem.hidden, problem.reference, labels)
    return found.detach()


def measure_exactly(problem: Problem, *, is_tiny: bool = False, n_top: int = 0) -> Tensor:
    """klaudit."""
    heads = OutputHead(problem.reference if is_tiny else problem.policy), OutputHead(problem.reference)
    states = problem.nearby if is_tiny else problem.hidden
    return measure_divergence(states, heads[0], reference_hidden=problem.hidden, reference_head=heads[1], n_top=n_top).full


VARIANTS: Mapping[str, Callable[[Problem], Tensor]] = {
    "two products alone": multiply,
    "naive: two log_softmax": lambda problem: subtract_softmaxes(problem.hidden, problem),
    "F.kl_div(log_target)": call_kl_div,
    f"naive in chunks of {CHUNK} tokens": loop_over_chunks,
    "Liger fused linear JSD": call_liger,
    "klaudit": measure_exactly,
    "klaudit, tiny drift": partial(measure_exactly, is_tiny=True),
    "klaudit, top 3 named": partial(measure_exactly, n_top=3),
}
FLOOR, NAIVE = "two products alone", "naive: two log_softmax"


def run(variant: str, problem: Problem) -> Tensor:
    """One call, waited for."""
    # Liger's loss takes gradients inside, and asks for them itself
    with torch.set_grad_enabled(variant.startswith("Liger")):
        found = VARIANTS[variant](problem)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return found


def read_clock() -> float:
    """Seconds: of this process where it has one thread, on the wall elsewhere."""
    return time.process_time() if DEVICE.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def measure_memory(variant: str, shape: Shape) -> float:
    """MiB at the high water over the inputs; to be called in a process of its own, on Linux where there is no GPU."""
    problem = make_problem(shape)
    run(variant, Problem(problem.hidden[:8], problem.nearby[:8], problem.policy[:512], problem.reference[:512]))
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        run(variant, problem)
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what the inputs' making freed must not hide what is taken now
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high water starts again from here
    before = read_memory("VmRSS")
    run(variant, problem)
    return read_memory("VmHWM") - before


def read_memory(name: str) -> float:
    """MiB of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def ask_for_memory(variant: str, shape: Shape) -> float:
    """`measure_memory` in a process of its own."""
    asked = json.dumps([variant, shape.n_vocabulary, shape.n_hidden, shape.n_tokens])
    command = [sys.executable, "-m", "tests.bench.kl_kernel", "--memory-of", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise SystemExit(f"{variant}, {shape}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return float(done.stdout)


def time_rounds(variants: Sequence[str], shape: Shape, *, n_rounds: int) -> dict[str, list[float]]:
    """Seconds by variant, one a round."""
    problem = make_problem(shape)
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(n_rounds + 1):
        for variant in track(variants, f"{shape}: round {number} of {n_rounds}", transient=True, console=Console(stderr=True)):
            if number == 0:
                run(variant, Problem(problem.hidden[:64], problem.nearby[:64], problem.policy[:8192], problem.reference[:8192]))
                continue
            began_at = read_clock()
            run(variant, problem)
            seconds[variant].append(read_clock() - began_at)
    return seconds


def judge(shape: Shape, seconds: Mapping[str, Sequence[float]], memory: Mapping[str, float]) -> tuple[Figures, bool]:
    """A table, and whether all goals are met."""
    rows, is_met = [], True
    for variant, times in seconds.items():
        ratio = statistics.median(one / floor for one, floor in zip(times, seconds[FLOOR], strict=True))
        less = memory[NAIVE] / memory[variant]
        goal = ""
        if variant in MOST_TIME:
            goal = f"{MOST_TIME[variant]:g} x, {LEAST_MEMORY_RATIO:g} times less"
            is_met = is_met and ratio <= MOST_TIME[variant] and less >= LEAST_MEMORY_RATIO
        rows.append((variant, f"{ratio:.2f}", f"{statistics.median(times):.2f}", f"{memory[variant]:,.0f}", f"{less:.1f}", goal))
    columns = ("variant", "x of the products", "median s", "extra MiB", "times less than naive", "goal")
    return Figures(f"{shape}, {DEVICE.type}, {torch.get_num_threads()} thread(s)", columns, rows), is_met


def explain_liger() -> str | None:
    """Why Liger's loss does not run here; None where it does."""
    problem = make_problem(Shape(64, 8, 4))
    try:
        run("Liger fused linear JSD", problem)
    except Exception as error:  # whatever keeps it from running is the answer
        return f"{type(error).__name__}: {error}"
    return None


def main() -> int:
    """Print the tables; exits with 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, help="instead of 2,048, and 512 with the larger vocabulary")
    parser.add_argument("--shapes", type=int, nargs="+", choices=range(1, len(SHAPES) + 1), help="; ".join(map(str, SHAPES)))
    parser.add_argument("--markdown", action="store_true", help="the tables of docs/kernel.md")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        variant, *sizes = json.loads(arguments.memory_of)
        sys.stdout.write(f"{measure_memory(variant, Shape(*sizes))}\n")
        return 0
    reason = explain_liger()
    if reason:
        print(f"Liger-Kernel's loss does not run here: {reason}\n")
    variants = [variant for variant in VARIANTS if not (reason and variant.startswith("Liger"))]
    is_met = True
    for number in arguments.shapes or range(1, len(SHAPES) + 1):
        one = SHAPES[number - 1]
        shape = Shape(one.n_vocabulary, one.n_hidden, arguments.tokens or one.n_tokens)
        memory = {variant: ask_for_memory(variant, shape) for variant in variants}
        figures, is_good = judge(shape, time_rounds(variants, shape, n_rounds=arguments.rounds), memory)
        is_met = is_met and is_good
        print_table(figures, as_markdown=arguments.markdown)
    return 0 if is_met else 1


if __name__ == "__main__":
    raise SystemExit(main())
