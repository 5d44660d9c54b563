"""Batches of sequences of about one length, and what to do when one does not fit into memory."""

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from klaudit.errors import OutOfMemory

Item = TypeVar("Item")
Result = TypeVar("Result")

ALLOCATION_FAILURES = ("can't allocate memory", "not enough memory", "cannot allocate memory", "out of memory")
"""What torch's allocators say in a plain RuntimeError, in lower case: the CPU's has no exception class of its own."""


def plan_batches(lengths: Sequence[int], *, batch_size: int) -> tuple[tuple[int, ...], ...]:
    """Places of the items of each batch, longest items first: padding is least where neighbours are of one length.

    A batch that does not fit into memory is so found at the start and not at the end.

    Args:
        lengths: tokens of each item.
        batch_size: items a batch, 1 or more.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    return tuple(tuple(order[start : start + batch_size]) for start in range(0, len(order), batch_size))


def run_in_batches(
    items: Sequence[Item],
    batch_size: int,
    work: Callable[[list[Item]], Sequence[Result]],
    *,
    lengths: Sequence[int] | None = None,
    describe: Callable[[Item], str] = lambda item: f"{item!r:.80}",
) -> list[Result]:
    """Results in the order of the items. Where a batch does not fit into memory the batch size is halved, and the work goes on from there.

    Args:
        items: what is worked on.
        batch_size: most items a batch, 1 or more.
        work: gives one result for each item of a batch; may be called again with half of a batch that it failed on.
        lengths: tokens of each item, for batches of about one length; without them batches are as the items come.
        describe: names an item and its size in the error.

    Raises:
        OutOfMemory: a batch of one item does not fit.
    """
    waiting = [place for batch in plan_batches(lengths or [0] * len(items), batch_size=max(1, batch_size)) for place in batch]
    results: dict[int, Result] = {}
    while waiting:
        places = waiting[: max(1, batch_size)]
        done = _try(work, [items[place] for place in places])
        if done is not None:
            results.update(zip(places, done, strict=True))
            waiting = waiting[len(places) :]
        elif len(places) == 1:
            raise OutOfMemory(
                f"Memory does not hold even a batch of one: {describe(items[places[0]])}. "
                "Take shorter prompts or fewer new tokens, a smaller model, or a machine with more memory."
            )
        else:
            batch_size = len(places) // 2
    return [results[place] for place in range(len(items))]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in ALLOCATION_FAILURES)


def _try(work: Callable[[list[Item]], Sequence[Result]], batch: list[Item]) -> Sequence[Result] | None:
    """None where memory ran out; what the failed attempt held is free again by then."""
    try:
        return work(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
