"""What the tests have other tools log: 50 steps with a NaN and both infinities, a resume, and a run of a Hugging Face trainer."""

import math
from typing import Any

STEPS: list[Any] = [[step, {"objective/kl": step / 7, "objective/scores": -0.5, "note": "a text"}] for step in range(1, 51)]
STEPS[9][1]["objective/kl"] = math.nan
STEPS[10][1]["objective/kl"] = math.inf
STEPS[11][1]["objective/kl"] = -math.inf
RESUMED = [*STEPS[:30], *STEPS[20:40]]
NUMBERS = [[step, {key: value for key, value in values.items() if key != "note"}] for step, values in STEPS]

MLFLOW = {
    "runs": {"first": NUMBERS, "resumed": [*NUMBERS[:30], *NUMBERS[20:40]], "gone": NUMBERS[:3], "broken": [[0, {"kl": 0.5}]], "empty": []},
    "params": {"kl_coef": 0.05, "temperature": 0.7, "use_lora": True, "seed": 7, "model": "a model", "target_kl": None},
    "deleted": ["gone"],
    "failed": ["broken"],
}

# As Hugging Face's trainers do it: trackio counts the calls, and the trainer's step stands among the values.
FROM_A_TRAINER = [[call, {"train/kl": call / 10, "train/global_step": 5 * call}] for call in range(1, 4)]
TRACKIO = {
    "project": "project",
    "runs": {"first": STEPS, "from a trainer": [*FROM_A_TRAINER, [4, {"samples": 2.0}]], "resumed": RESUMED},
    "config": {"kl_coef": 0.05, "model": "a model"},
    "is_killed": False,
}
