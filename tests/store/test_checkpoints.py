from dataclasses import replace
from datetime import timedelta

from klaudit.records import Checkpoint
from klaudit.store import Store
from tests.store.examples import DIGEST, MOMENT


def test_checkpoints_come_back_in_order_of_segment_and_step(store_with_run: Store) -> None:
    late, early = Checkpoint("id-1", 20, "checkpoints/20", MOMENT, digest=DIGEST), Checkpoint("id-1", 10, "checkpoints/10", MOMENT)
    resumed = Checkpoint("id-1", 15, "checkpoints/15", MOMENT, segment=1)
    for one in (resumed, late, early):
        store_with_run.checkpoints.add(one)
    assert store_with_run.checkpoints.list("id-1") == [early, late, resumed]


def test_a_checkpoint_saved_again_is_the_later_one(store_with_run: Store) -> None:
    first = Checkpoint("id-1", 10, "checkpoints/10", MOMENT)
    again = replace(first, saved_at=MOMENT + timedelta(seconds=1), digest=DIGEST)
    store_with_run.checkpoints.add(first)
    store_with_run.checkpoints.add(again)
    assert store_with_run.checkpoints.list("id-1") == [again]
