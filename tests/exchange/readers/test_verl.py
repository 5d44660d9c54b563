"""verl's two logs, as verl 0.9.1 writes them: verl/utils/tracking.py lines 529-545, verl/utils/logger/aggregate_logger.py lines 27-33."""

import gzip
import json
import math
from pathlib import Path

import pytest

from klaudit.errors import InvalidImportFile
from tests.exchange.readers.reading import describe, read_one, write


def log_step(step: int, kl: float) -> dict[str, float]:
    return {
        "actor/reward_kl_penalty": kl, "actor/reward_kl_penalty_coeff": 0.001, "actor/ppo_kl": 0.0004, "actor/entropy": 0.41,
        "actor/pg_clipfrac": 0.002, "actor/grad_norm": 1.2, "critic/score/mean": 0.3 + step / 100, "critic/rewards/mean": 0.29,
        "response_length/mean": 180.5, "training/global_step": step,
    }  # fmt: skip


EXPECTED_SERIES = {"kl": ("reference", "k1", "nats_per_token"), "kl_update": ("update", "k1", "nats_per_token")}


@pytest.mark.parametrize("is_zipped", [False, True], ids=["plain", "gzip"])
def test_the_file_of_verls_logger_is_a_run(tmp_path: Path, is_zipped: bool) -> None:
    lines = "".join(json.dumps({"step": step, "data": log_step(step, step / 1000)}, separators=(",", ":")) + "\n" for step in (1, 2, 3))
    name, content = ("exp.jsonl.gz", gzip.compress(lines.encode())) if is_zipped else ("exp.jsonl", lines.encode())
    read = read_one(write(tmp_path / name, content))
    assert (read.format_name, read.run.name, read.run.framework) == ("verl-jsonl", "exp", "verl")
    assert describe(read.run.series) == EXPECTED_SERIES
    assert read.places == [(0, 1), (0, 2), (0, 3)]
    assert read.kls == [0.001, 0.002, 0.003]
    first = read.steps[0]
    assert (first.beta, first.score, first.kl.mean_length) == (0.001, 0.31, 180.5)
    assert first.metrics["entropy"] == 0.41


# Ray's prefix comes in colour on a terminal and without elsewhere; values are printed by pprint.
CONSOLE = """\
2026-11-22 10:00:00,123\tINFO worker.py:1879 -- Started a local Ray instance.
\x1b[36m(TaskRunner pid=4242)\x1b[0m {'actor_rollout_ref': {'actor': {'entropy_coeff': 0, 'step': 1}}}
(TaskRunner pid=4242) Training Progress:   0%|          | 0/435 [00:00<?, ?it/s]
\x1b[36m(TaskRunner pid=4242)\x1b[0m step:0 - val-core/gsm8k/reward/mean@1:np.float64(0.05)
(WorkerDict pid=99) [2026-11-22] step: 1 was slow
\x1b[36m(TaskRunner pid=4242)\x1b[0m step:1 - actor/reward_kl_penalty:np.float64(0.0012) - actor/reward_kl_penalty_coeff:0.001 - \
actor/ppo_kl:-4.5e-05 - actor/entropy:0.41 - critic/score/mean:0.3 - response_length/mean:180.5 - actor/grad_norm:nan
(TaskRunner pid=4242, ip=10.0.0.1) step:2 - actor/reward_kl_penalty:0.002 - actor/reward_kl_penalty_coeff:0.001 - actor/ppo_kl:0.000 - \
critic/score/mean:np.float32(0.35) - response_length/mean:181
step:3 - actor/reward_kl_penalty:inf - actor/reward_kl_penalty_coeff:0.001 - actor/ppo_kl:0.000 - critic/score/mean:0.3(WorkerDict pid=9)
"""


def test_what_verl_prints_is_a_run(tmp_path: Path) -> None:
    read = read_one(write(tmp_path / "exp.log", CONSOLE))
    assert (read.format_name, read.run.framework) == ("verl-console", "verl")
    assert describe(read.run.series) == EXPECTED_SERIES
    assert read.places == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert read.kls == [None, 0.0012, 0.002, math.inf]
    assert read.steps[0].metrics == {"val-core/gsm8k/reward/mean@1": 0.05}
    assert read.steps[1].readings["kl_update"].value == -4.5e-05
    assert math.isnan(read.steps[1].metrics["grad_norm"])
    assert [step.score for step in read.steps] == [None, 0.3, 0.35, None]
    assert any(note.startswith("1 pairs of the log could not be read") for note in read.notes)


def test_a_log_that_goes_on_after_a_resume_has_two_segments(tmp_path: Path) -> None:
    line = "step:{} - actor/ppo_kl:0.1 - actor/kl_loss:0.{}\n"
    log = (
        "".join(line.format(step, step) for step in (1, 2, 3))
        + "Traceback (most recent call last):\n"
        + line.format(3, 9)
        + line.format(4, 4)
    )
    read = read_one(write(tmp_path / "exp.log", log.replace("step:3 - actor/ppo_kl:0.1 - actor/kl_loss:0.9", "step:2 - actor/kl_loss:0.9")))
    assert read.places == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 4)]
    assert read.kls == [0.1, 0.2, 0.3, 0.9, 0.4]
    assert describe(read.run.series)["kl"] == ("reference", "k3", "nats_per_token")


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ('{"step": 2, "data": [1]}', "line 2, field 'data': expected an object; got [1]"),
        ('{"step": 2}', "line 2, field 'data': expected an object; got None"),
        ('{"step": "two", "data": {}}', "line 2, field 'step': expected a whole number, 0 or more; got 'two'"),
        ('{"data": {}}', "line 2, field 'step': expected a whole number, 0 or more; got nothing"),
        ('{"step": 2, "data": {"actor/ppo_kl": 0.', "line 2: expected one JSON object"),
        ('{"step": 2, "data": {"actor/reward_kl_penalty": {}}}', "line 2, field 'actor/reward_kl_penalty': expected a number; got {}"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, second: str, said: str) -> None:
    path = write(tmp_path / "exp.jsonl", json.dumps({"step": 1, "data": log_step(1, 0.1)}) + "\n" + second)
    with pytest.raises(InvalidImportFile) as caught:
        read_one(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
