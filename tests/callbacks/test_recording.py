import sys

import pytest

from klaudit.callbacks.recording import Guarded, never_raise, plan_recording
from klaudit.errors import InvalidConfig, KLBudgetExceeded
from klaudit.records import KLBudget


class Fragile(Guarded):
    @never_raise
    def fail(self, error: BaseException) -> None:
        raise error


def test_an_exception_stays_inside_is_counted_and_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    fragile = Fragile()
    fragile.fail(ValueError("first"))
    fragile.fail(KeyError("second"))
    assert fragile.guard.failures == 2
    assert capsys.readouterr().err == (
        "klaudit: fail failed and training goes on, without the record of it; later failures are only counted. ValueError: first\n"
    )


def test_a_closed_terminal_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    fragile = Fragile()
    fragile.fail(ValueError("unheard"))
    assert fragile.guard.failures == 1


@pytest.mark.parametrize("error", [KLBudgetExceeded("over"), KeyboardInterrupt(), SystemExit()])
def test_what_is_meant_to_end_a_training_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        Fragile().fail(error)


def test_one_budget_several_or_none() -> None:
    one = KLBudget(1.0, "nats_per_token")
    for budget, planned in ((None, ()), (one, (one,)), ([one, one], (one, one))):
        assert plan_recording(store=None, budget=budget, policy=None, webhook=None).budgets == planned


@pytest.mark.parametrize("store", ["nonsense", "mysql://host/x", "postgresql://host:notaport/x"])
def test_a_store_that_cannot_be_is_refused_before_training(store: str) -> None:
    with pytest.raises(InvalidConfig):
        plan_recording(store=store, budget=None, policy=None, webhook=None)
