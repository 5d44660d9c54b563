import pytest

import klaudit
from klaudit.records import KLBudget, KLSeries
from klaudit.store import Store
from klaudit.store.steps import StepRepository

K1 = KLSeries(estimator="k1", unit="nats_per_sequence")
STOP = KLBudget(1.0, "nats_per_sequence", on="value", action="stop")


def test_a_resumed_run_is_not_stopped_for_what_its_last_segment_did(store_url: str, store: Store) -> None:
    run = klaudit.start_run("brake", kl=K1, batch_size=16, budget=STOP, store=store_url)
    run.log(step=1, kl=0.5)
    with pytest.raises(klaudit.KLBudgetExceeded):
        run.log(step=2, kl=9.0)
    with klaudit.start_run("brake", kl=K1, batch_size=16, budget=STOP, store=store_url, resumed_from_step=2) as resumed:
        resumed.log(step=3, kl=0.5)
        resumed.log(step=4, kl=0.4)
        assert resumed.failures == 0
        with pytest.raises(klaudit.KLBudgetExceeded, match="at step 5"):
            resumed.log(step=5, kl=8.0)


def test_the_brake_holds_when_the_store_does_not(
    store_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("klaudit.workflows.recorder.run_recorder.LAST_STEPS_TIMEOUT_S", 0.3)
    run = klaudit.start_run("brake", kl=K1, batch_size=16, budget=STOP, store=store_url)
    with monkeypatch.context() as broken:
        broken.setattr(StepRepository, "add_all", refuse)
        run.log(step=1, kl=0.5)
        with pytest.raises(klaudit.KLBudgetExceeded):
            run.log(step=2, kl=9.0)
        assert run.lost == 0
    assert "they wait in" in capsys.readouterr().err


def test_a_closed_run_takes_no_more_steps(store_url: str, store: Store) -> None:
    run = klaudit.start_run("closed", kl=K1, store=store_url)
    run.log(step=1, kl=0.5)
    run.close()
    run.log(step=2, kl=0.5)
    assert run.failures == 1
    assert store.steps.count(store.runs.get("closed").id) == 1
