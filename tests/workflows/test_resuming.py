from dataclasses import replace

import pytest

from klaudit.audit import PRESETS
from klaudit.errors import InvalidRecord
from klaudit.records import KLBudget, Run
from klaudit.store import Store
from klaudit.workflows.audits import audit_stored_run, keep_findings
from klaudit.workflows.recorder.run_recorder import RunRecorder
from klaudit.workflows.recorder.start import start_recording
from tests.workflows.recordings import FULL, NOW, begin, make_step, record_all

STRICT = KLBudget(1.0, "nats_per_sequence")


def begin_in(url: str, directory: str, *, resumed_from_step: int | None = None) -> RunRecorder:
    run = Run(id="", name="run", started_at=NOW, series={"kl": FULL}, config={"output_dir": directory})
    return start_recording(url, run=run, policy=PRESETS["default"], resumed_from_step=resumed_from_step)


def test_a_resume_adds_the_budgets_it_brings_and_takes_none_back(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[STRICT]) as recorder:
        record_all(recorder, [0.1, 0.2])
    loose = replace(STRICT, limit=50.0, action="stop")
    with begin(store_url, budgets=[STRICT, loose], resumed_from_step=2) as resumed:
        assert sorted((one.limit, one.action) for one in resumed.budgets) == [(1.0, "alert"), (50.0, "stop")]


def test_a_trainer_goes_on_with_the_run_that_wrote_to_its_directory(store_url: str, store: Store) -> None:
    for directory in ("first", "second"):
        with begin_in(store_url, directory) as recorder:
            record_all(recorder, [0.1])
    with begin_in(store_url, "second", resumed_from_step=1) as resumed:
        assert (resumed.run.name, resumed.segment) == ("run-2", 1)
    with begin_in(store_url, "somewhere-else", resumed_from_step=1) as resumed:
        assert (resumed.run.name, resumed.segment) == ("run", 1)


def test_a_step_that_goes_back_is_refused_and_changes_nothing(store_url: str, store: Store) -> None:
    with begin(store_url) as recorder:
        record_all(recorder, [0.1], first_step=5)
        with pytest.raises(InvalidRecord, match="after 5; got 3"):
            recorder.log(make_step(3, float("nan")))
    assert [one.step for one in store.steps.list(recorder.run.id)] == [5]
    assert audit_stored_run(store, "run").findings == ()


def test_an_audit_of_a_run_in_training_leaves_its_findings_to_the_trainer(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[STRICT]) as recorder:
        record_all(recorder, [5.0])
        earlier = audit_stored_run(store, "run")
        record_all(recorder, [0.1, 0.1, 0.1], first_step=2)
        keep_findings(store, earlier)
        (finding,) = [one for one in store.findings.list(recorder.run.id) if one.code == "KLA101"]
        assert finding.status == "ended"
