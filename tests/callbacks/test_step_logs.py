import pytest

from klaudit.callbacks.step_logs import StepLogs
from klaudit.errors import InvalidRecord


def test_every_step_is_one_mapping() -> None:
    logs = StepLogs()
    assert [logs.take(step, {"loss": float(step)}) for step in (1, 2)] == [{"loss": 1.0}, {"loss": 2.0}]


@pytest.mark.parametrize("summary", [{}, {"train_runtime": 60.0, "train_loss": 0.1}, {"train_samples_per_second": 3.0}])
def test_the_summary_and_an_empty_log_are_no_step(summary: dict[str, float]) -> None:
    logs = StepLogs()
    assert logs.take(1, summary) is None
    assert logs.take(2, {"loss": 1.0}) == {"loss": 1.0}


def test_an_evaluation_stands_with_the_step_whose_kl_is_of_the_same_policy() -> None:
    logs = StepLogs()
    assert logs.take(1, {"loss": 1.0, "epoch": 0.1}) == {"loss": 1.0, "epoch": 0.1}
    assert logs.take(1, {"eval_reward": 0.7, "eval_runtime": 9.0, "epoch": 0.1}) is None
    assert logs.take(2, {"loss": 0.5, "epoch": 0.2}) == {"eval_reward": 0.7, "loss": 0.5, "epoch": 0.2}
    assert logs.take(3, {"loss": 0.4}) == {"loss": 0.4}


def test_an_evaluation_before_the_first_step_stands_with_it() -> None:
    logs = StepLogs()
    assert logs.take(0, {"eval_reward": 0.2}) is None
    assert logs.take(1, {"loss": 1.0}) == {"eval_reward": 0.2, "loss": 1.0}


def test_a_later_log_of_a_step_adds_to_the_next_one_and_repeats_nothing() -> None:
    logs = StepLogs()
    logs.take(1, {"loss": 1.0, "epoch": 0.1})
    assert logs.take(1, {"my_metric": 3.0, "epoch": 0.1}) is None
    assert logs.take(1, {"my_metric": 4.0}) is None
    assert logs.take(2, {"loss": 0.5}) == {"my_metric": 4.0, "loss": 0.5}


def test_what_the_next_step_logs_itself_wins() -> None:
    logs = StepLogs()
    logs.take(1, {"loss": 1.0})
    logs.take(1, {"my_metric": 3.0})
    assert logs.take(2, {"my_metric": 9.0}) == {"my_metric": 9.0}


def test_a_step_that_is_logged_twice_is_refused_and_keeps_its_first_numbers() -> None:
    logs = StepLogs()
    logs.take(7, {"loss": 1.0})
    with pytest.raises(InvalidRecord, match="one log of step 7; got a second one of loss: the first is on record"):
        logs.take(7, {"loss": 2.0, "grad_norm": 1.0})
    assert logs.take(8, {"loss": 3.0}) == {"grad_norm": 1.0, "loss": 3.0}


def test_the_summary_brings_the_steps_behind_the_last_full_window() -> None:
    summary = {"train_runtime": 9.0, "train_loss": 0.1, "train_steps_per_second": 1.0, "total_flos": 0.0, "epoch": 1.0}
    logs = StepLogs()
    assert logs.take(10, {"kl": 0.1}) == {"kl": 0.1}
    assert logs.take(12, {**summary, "kl": 0.2}) == {"kl": 0.2, "epoch": 1.0}
    assert StepLogs().take(12, summary) is None
    every_step = StepLogs()
    assert every_step.take(12, {"kl": 0.1}) is not None
    assert every_step.take(12, {**summary, "kl": 0.2}) is None
