from klaudit.demo.prompts import HELDOUT_BEGINNINGS, REVIEW_BEGINNINGS


def test_drift_is_measured_on_prompts_that_nothing_was_trained_on() -> None:
    assert set(REVIEW_BEGINNINGS) & set(HELDOUT_BEGINNINGS.prompts) == set()
    assert len(set(REVIEW_BEGINNINGS)) == len(REVIEW_BEGINNINGS)
    assert len(set(HELDOUT_BEGINNINGS.prompts)) == len(HELDOUT_BEGINNINGS.prompts)
