"""Ranks that stop or save together: one that stops alone leaves the others waiting for it for ever."""

from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
from torch import distributed
from torch.distributed import distributed_c10d

ARRIVAL_TIMEOUT = timedelta(seconds=10)
"""How long rank 0 waits, as training begins, for ranks that may not have the callback."""

ANSWER_TIMEOUT = timedelta(seconds=60)
"""How long the others wait for rank 0, which may not have it either, or may be slow to reach the store."""


class Decision(IntEnum):
    """What a broken budget asks of the trainer; a larger one includes the smaller."""

    GO_ON = 0
    SAVE = 1
    STOP = 2
    RAISE = 3
    """Stop a trainer that never reads `should_training_stop`."""


def has_peers() -> bool:
    """Whether other ranks train beside this one."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def agree_to_share(training: str, *, has_brake: bool) -> bool:
    """Whether the ranks share their decisions after each step: where rank 0 has a brake, and every rank has the callback.

    They meet in the process group's key-value store and not in a collective, so that a callback on some of the ranks only, as under
    `if is_main_process`, does not hang the training.

    Args:
        training: tells one training of this process group from another; the same on every rank.
        has_brake: on rank 0, whether a budget may ask for more than an alert.
    """
    meeting = distributed_c10d.PrefixStore(f"klaudit/{training}", distributed_c10d._get_default_store())
    rank = distributed.get_rank()
    if rank == 0:
        others = [f"rank {other}" for other in range(1, distributed.get_world_size())]
        is_shared = has_brake and _have_come(meeting, others, timeout=ARRIVAL_TIMEOUT)
        answer = "share" if is_shared else "alone"
    else:
        meeting.set(f"rank {rank}", "here")
        _have_come(meeting, ["answer"], timeout=ANSWER_TIMEOUT)
        answer = "alone"
    # The first answer holds for all: a rank that gave up waiting must not be waited for either.
    return bool(meeting.compare_set("answer", "", answer) == b"share")


def _have_come(meeting: Any, keys: list[str], *, timeout: timedelta) -> bool:
    try:
        meeting.wait(keys, timeout)
    except RuntimeError:
        return False
    return True


def share_decision(decision: Decision, *, device: Any) -> Decision:
    """The largest decision of all ranks. Every rank calls this at the same place.

    Args:
        decision: this rank's; ranks that record nothing give GO_ON.
        device: where the trainer's collectives run.
    """
    shared = torch.tensor(int(decision), dtype=torch.int32, device=device)
    distributed.all_reduce(shared, op=distributed.ReduceOp.MAX)
    return Decision(int(shared.item()))
