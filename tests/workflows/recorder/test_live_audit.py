from klaudit.audit import PRESETS
from klaudit.records import KLBudget, Run
from klaudit.store import Store
from klaudit.workflows.recorder.live_audit import LiveAudit
from klaudit.workflows.recorder.reporter import Silence
from tests.workflows.recordings import FULL, NOW, begin, make_step, record_all

BUDGET = KLBudget(1.0, "nats_per_sequence")


def start(run: Run) -> LiveAudit:
    return LiveAudit(run, budgets=[BUDGET], policy=PRESETS["default"], reporter=Silence())


def test_a_step_that_comes_while_another_is_looked_at_is_looked_at_with_the_next() -> None:
    audit = start(Run(id="r1", name="run", started_at=NOW, series={"kl": FULL}))
    with audit.lock:
        assert audit.observe(make_step(1, 50.0)) == ()
    assert [(one.code, one.detected_step) for one in audit.observe(make_step(2, 0.1)) if one.code == "KLA101"] == [("KLA101", 1)]


def test_a_finding_is_kept_until_it_is_dropped_as_it_stands() -> None:
    audit = start(Run(id="r1", name="run", started_at=NOW, series={"kl": FULL}))
    audit.observe(make_step(1, 2.0))
    before = next(one for one in audit.findings if one.code == "KLA101")
    audit.observe(make_step(2, 3.0))
    revised = next(one for one in audit.findings if one.id == before.id)
    audit.drop(before)
    assert revised in audit.findings
    audit.drop(revised)
    assert revised not in audit.findings


def test_an_audit_that_settles_has_seen_what_is_stored_and_names_what_is_on_record(store_url: str, store: Store) -> None:
    with begin(store_url, budgets=[BUDGET]) as recorder:
        record_all(recorder, [0.1, 2.0])
    audit = start(recorder.run)
    audit.observe(make_step(3, 2.5))
    on_record = audit.settle(store, recorder.run, budgets=recorder.budgets, segment=1)
    assert [(one.code, one.detected_step) for one in on_record] == [("KLA101", 2)]
    concluded = audit.conclude()
    assert concluded is not None
    assert concluded.coverage.steps == 3
    assert {one.segment for one in concluded.findings if one.code == "KLA101"} == {0, 1}


def test_nothing_that_was_looked_at_is_no_audit() -> None:
    assert start(Run(id="r1", name="run", started_at=NOW, series={"kl": FULL})).conclude() is None
