"""Track C: short runs of the embedded trainer, broken on purpose at a known step, as they were recorded."""

import json
from pathlib import Path

from klaudit.assets import locate_asset
from klaudit.detectors.score import Planted
from tests.bench.detection.curve import find_onset
from tests.bench.detection.labelled_run import LabelledRun

DIRECTORY = "broken"


def read_broken_runs() -> list[LabelledRun]:
    """The runs of sample_runs/broken; those without a planted cause are healthy ones. None where nothing was recorded."""
    root = locate_asset("sample_runs") / DIRECTORY
    return [read_broken_run(path.parent) for path in sorted(root.glob("*/steps.jsonl"))]


def read_broken_run(directory: Path) -> LabelledRun:
    """One of them: its first cause is the one to be found, all its causes' codes name it rightly."""
    header, *steps = (json.loads(line) for line in (directory / "steps.jsonl").read_text(encoding="utf-8").splitlines() if line.strip())
    causes = json.loads((directory / "truth.json").read_text(encoding="utf-8"))["planted"]
    planted = None
    if causes:
        first = min(causes, key=lambda cause: find_onset(cause, steps))
        codes = frozenset(first.get("codes") or [first["code"]])
        planted = Planted(first["cause"], find_onset(first, steps), codes, int(first["within_steps"]))
    return LabelledRun(directory.name, header, steps, planted, about={"run": directory.name})
