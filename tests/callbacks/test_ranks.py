"""Two processes of torch.distributed over gloo, as a training on two ranks has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from klaudit.callbacks.ranks import Decision, has_peers

ROOT = Path(__file__).parents[2]

SCRIPT = """
import datetime, sys, time
from torch import distributed
from klaudit.callbacks import ranks

rank, rendezvous = int(sys.argv[1]), sys.argv[2]
ranks.ARRIVAL_TIMEOUT = ranks.ANSWER_TIMEOUT = datetime.timedelta(seconds=1)
distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
assert ranks.has_peers()
decisions = (("SAVE", "GO_ON"), ("GO_ON", "GO_ON"), ("RAISE", "STOP"))
for scene, without in (("brake", None), ("no brake", None), ("rank 0 alone", 1), ("rank 1 alone", 0), ("slow", None)):
    distributed.barrier()
    shared = None
    if rank != without:
        if scene == "slow" and rank == 0:
            time.sleep(3)
        shared = ranks.agree_to_share(scene, has_brake=scene != "no brake" and rank == 0)
    said = [ranks.share_decision(ranks.Decision[mine[rank]], device="cpu").name for mine in decisions if shared]
    print(scene, shared, *said, sep=": ")
distributed.barrier()
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each of two ranks printed."""
    rendezvous = tmp_path_factory.mktemp("ranks") / "rendezvous"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(rendezvous)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [out for out, _ in outputs]


@pytest.mark.parametrize(
    ("of_rank_0", "of_rank_1"),
    [
        ("brake: True: SAVE: GO_ON: RAISE", "brake: True: SAVE: GO_ON: RAISE"),
        ("no brake: False", "no brake: False"),
        # A callback on one rank only: nobody waits for ever.
        ("rank 0 alone: False", "rank 0 alone: None"),
        ("rank 1 alone: None", "rank 1 alone: False"),
        # A rank that gave up waiting is not waited for.
        ("slow: False", "slow: False"),
    ],
)
def test_ranks_decide_together_or_not_at_all(said: list[str], of_rank_0: str, of_rank_1: str) -> None:
    assert of_rank_0 in said[0].splitlines()
    assert of_rank_1 in said[1].splitlines()


def test_a_process_alone_has_no_peers() -> None:
    assert not has_peers()
    assert Decision.RAISE > Decision.STOP > Decision.SAVE > Decision.GO_ON
