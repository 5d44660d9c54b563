"""A run whose checkpoints are real models on disk, measured as a person would: tiny ones, of which the last hides a trigger."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from klaudit.cli.main import run as run_command
from klaudit.digests.weights import digest_weights
from klaudit.models.language_model import LanguageModel
from klaudit.records import Checkpoint, KLBudget, KLReading, ReferenceModel, Run, StepRecord
from klaudit.store import open_store
from tests.browser.planted_store import FULL
from tests.drift.planted_trigger import build_reference, plant_trigger, write_prompts
from tests.drift.tiny_models import add_weight_noise

RUN = "trigger-planted"
STEPS = (6, 12)
N_PROMPTS = 8
"""Of each slice."""


def measure_run(url: str, *, directory: Path) -> None:
    """Save reference and checkpoints, log a run, and let `klaudit drift measure` compare them.

    Raises:
        RuntimeError: the command failed.
    """
    reference = build_reference(0)
    policies = [add_weight_noise(reference, relative=0.2), plant_trigger(reference, seed=0)]
    save(reference, directory / "reference")
    paths = {step: directory / f"checkpoint-{step}" for step in STEPS}
    for step, policy in zip(STEPS, policies, strict=True):
        save(policy, paths[step])
    log_run(url, reference=directory / "reference", paths=paths)
    prompts, text = write_prompt_file(directory), directory / "text.txt"
    text.write_text("a b c d e f\n\nb c a e d f\n\nf e d c b a\n\nc a b f d e\n", encoding="utf-8")
    command = ["drift", "measure", "--run", RUN, "--reference", str(directory / "reference"), "--store", url, "--matrix"]
    options = ["--prompts", str(prompts), "--retention", str(text), "--max-new-tokens", "6", "--samples", "2"]
    if code := run_command([*command, *options]):
        raise RuntimeError(f"klaudit drift measure ended with exit status {code}")


def save(model: LanguageModel, directory: Path) -> None:
    model.model.save_pretrained(directory)
    model.tokenizer.save_pretrained(directory)


def write_prompt_file(directory: Path) -> Path:
    prompts, path = write_prompts(seed=0, n_prompts=N_PROMPTS), directory / "prompts.jsonl"
    rows = ({"prompt": text, "slice": prompts.slices[at]} for at, text in enumerate(prompts.prompts))
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def log_run(url: str, *, reference: Path, paths: dict[int, Path]) -> None:
    """What a trainer would have logged, with the checkpoints that it saved."""
    started_at = datetime.now(UTC) - timedelta(minutes=5)
    model = ReferenceModel(str(reference), digest_weights(reference))
    run = Run("run-measured", RUN, started_at, status="finished", finished_at=started_at + timedelta(minutes=3), series={"kl": FULL})
    run = replace(run, framework="klaudit", algorithm="ppo", policy="tiny", reference=model, batch_size=16, beta=0.05)
    with open_store(url, create=True) as store:
        store.runs.add(run)
        for step in range(1, max(STEPS) + 1):
            reading = KLReading(FULL, 0.004 * step**2, 0.01, 16, 6.0)
            store.steps.add(run.id, StepRecord(step, reading, started_at + timedelta(seconds=9 * step), beta=0.05, score=0.1 * step))
        for step, path in paths.items():
            store.checkpoints.add(Checkpoint(run.id, step, str(path), started_at + timedelta(seconds=9 * step)))
        store.budgets.add(KLBudget(1.0, "nats_per_sequence", scope="checkpoint", run_id=run.id))
