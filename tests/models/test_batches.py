import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klaudit.errors import OutOfMemory
from klaudit.models.batches import is_out_of_memory, plan_batches, run_in_batches

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes. Error code 12"


@given(lengths=st.lists(st.integers(1, 50), max_size=30), batch_size=st.integers(1, 10))
def test_every_item_is_in_one_batch_and_neighbours_are_of_one_length(lengths: list[int], batch_size: int) -> None:
    batches = plan_batches(lengths, batch_size=batch_size)
    order = [place for batch in batches for place in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert [lengths[place] for place in order] == sorted(lengths, reverse=True)


@given(lengths=st.lists(st.integers(1, 50), max_size=30), batch_size=st.integers(1, 10))
def test_results_come_in_the_order_of_the_items(lengths: list[int], batch_size: int) -> None:
    assert run_in_batches(lengths, batch_size, lambda batch: [n * 2 for n in batch], lengths=lengths) == [n * 2 for n in lengths]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_MESSAGE), MemoryError()])
def test_where_memory_runs_out_the_batch_is_halved_and_the_work_goes_on(error: BaseException) -> None:
    sizes: list[int] = []

    def work(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return [-n for n in batch]

    assert run_in_batches(range(11), 8, work) == [-n for n in range(11)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]


def test_one_item_that_does_not_fit_is_named_with_its_size() -> None:
    def work(batch: list[str]) -> list[str]:
        raise MemoryError

    with pytest.raises(OutOfMemory, match=r"a batch of one: the prompt 'long' of 900 tokens on some-model.*more memory") as caught:
        run_in_batches(["long"], 4, work, describe=lambda prompt: f"the prompt {prompt!r} of 900 tokens on some-model")
    assert caught.value.exit_code == 3


def test_another_error_is_not_taken_for_one_of_memory() -> None:
    def work(batch: list[int]) -> list[int]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_in_batches([1, 2], 2, work)


def test_what_torch_really_says_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
