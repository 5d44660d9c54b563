from klaudit.store import Store
from tests.store.examples import make_sample, make_step


def test_samples_come_back_token_by_token_words_like_nan_and_infinite_numbers_included(store_with_run: Store) -> None:
    samples = [make_sample(3, index=0), make_sample(3, index=1)]
    store_with_run.steps.add("id-1", make_step(3), samples)
    assert repr(store_with_run.samples.list("id-1")) == repr(samples)


def test_samples_are_found_by_their_step(store_with_run: Store) -> None:
    for step, segment in [(5, 0), (3, 0), (3, 1)]:
        store_with_run.steps.add("id-1", make_step(step, segment=segment), [make_sample(step, segment=segment)])
    store_with_run.steps.add("id-1", make_step(4))
    assert store_with_run.samples.steps_with_samples("id-1") == [3, 5]
    assert [(one.segment, one.step) for one in store_with_run.samples.list("id-1", 3)] == [(0, 3), (1, 3)]
    assert store_with_run.samples.list("id-1", 4) == []
