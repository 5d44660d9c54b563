from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from klaudit.records import KLSeries, ReferenceModel, Run, RunSummary, Segment
from klaudit.records.ledger import Actor, LedgerEntry
from klaudit.report.views import CaptureView, RunLedger, view_capture
from klaudit.report.views.capture import find_silence, format_time, is_stalled, state_waiting

NOW = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)
DIGEST, OTHER = "sha256:" + "3f" * 32, "sha256:" + "a7" * 32
NO_LEDGER = RunLedger()
FULL = KLSeries("reference", "full", "nats_per_sequence", "batch_mean", temperature=0.7, source_key="objective/kl")
RUN = Run("r1", "demo", NOW - timedelta(hours=1), algorithm="ppo", framework="trl", policy="tiny", series={"kl": FULL})
WRITER = Segment("r1", 0, NOW - timedelta(hours=1), host="gpu-1", pid=7, heartbeat_at=NOW - timedelta(minutes=27), lease_until=NOW)


def view(
    run: Run = RUN, *segments: Segment, n_steps: int = 4, ledger: RunLedger = NO_LEDGER, live_segment: int | None = None
) -> CaptureView:
    summary = RunSummary(run, n_steps, n_steps, NOW, None, None, None, {})
    return view_capture(summary, segments=segments, ledger=ledger, live_segment=live_segment, now=NOW)


def silence_of(run: Run = RUN, *, writer: Segment | None = WRITER, is_live: bool = False, silent: timedelta = timedelta(0)) -> str | None:
    return find_silence(run, last_logged_at=NOW - silent, n_steps=600, writer=writer, is_writer_live=is_live, now=NOW)


def make_entry(seq: int, kind: str, body: dict[str, Any]) -> LedgerEntry:
    return LedgerEntry(
        seq, "r1", seq, kind, NOW + timedelta(seconds=seq), Actor("ada", "gpu-1", 7), body, OTHER, OTHER, f"sha256:{seq:064x}"
    )


def test_a_series_is_told_with_all_that_makes_it_a_kl() -> None:
    [series] = view().series

    assert (series.name, series.estimator, series.unit) == ("KL to reference", "full", "nats/sequence")
    assert (series.aggregation, series.direction, series.temperature) == ("mean over sequences", "KL(policy || reference)", "0.7")
    assert (series.source, series.is_governing) == ("objective/kl", True)


def test_what_nobody_declared_is_said_to_be_unknown() -> None:
    [series] = view(replace(RUN, series={"kl": KLSeries(kind="unknown", direction="unknown")})).series

    assert {series.estimator, series.aggregation, series.direction} == {"unknown"}
    assert (series.unit, series.temperature, series.source, series.is_governing) == ("unknown unit", "not declared", "not declared", False)


def test_a_run_without_identity_segments_or_ledger_is_shown_with_what_it_has() -> None:
    shown = view(replace(RUN, policy=None))

    assert (shown.parts, shown.segments, shown.packages, shown.code, shown.imported) == ((), (), {}, None, None)
    assert shown.ledger_statement == "The ledger has no entry of this run: it is older than the ledger."


def test_a_reference_that_was_declared_shows_without_an_identity() -> None:
    shown = view(replace(RUN, reference=ReferenceModel("base", DIGEST)))

    assert [(one.title, one.name, one.digest) for one in shown.parts] == [("Policy", "tiny", None), ("Reference", "base", DIGEST)]


def test_why_a_digest_is_missing_stands_with_its_part_and_other_notes_stand_alone() -> None:
    notes = ["reference: no digest, because its weights lie in no directory", "logging_steps is 5", "trainer: strange"]
    shown = view(replace(RUN, identity={"reference": {"name": "base"}, "notes": notes}))

    assert [one.digest_of for one in shown.parts if one.title == "Reference"] == ["no digest, because its weights lie in no directory"]
    assert shown.notes == ("logging_steps is 5", "trainer: strange")


@pytest.mark.parametrize(
    ("known", "digest_of"),
    [
        ({"digest": DIGEST, "base_digest": OTHER}, ""),
        ({"parameters_digest": DIGEST}, "of the weights in memory"),
        ({"base_digest": DIGEST, "adapters": ["default"], "base_model": "base"}, "of the weights of its base model"),
    ],
)
def test_a_digest_says_what_it_is_of(known: dict[str, Any], digest_of: str) -> None:
    part = view(replace(RUN, identity={"policy": known})).parts[0]

    assert (part.digest, part.digest_of) == (DIGEST, digest_of)


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PARTS = ("policy", "reference", "tokenizer", "chat_template", "packages", "git", "platform", "notes", "imported")
KEYS = (
    "name",
    "digest",
    "n_bytes",
    "vocab_size",
    "adapters",
    "base_model",
    "commit",
    "is_dirty",
    "python",
    "system",
    "file",
    "format",
    "part",
)


@given(some.dictionaries(some.sampled_from(PARTS), JSON | some.dictionaries(some.sampled_from(KEYS), JSON)))
def test_no_identity_stops_the_page(identity: dict[str, Any]) -> None:
    assert view(replace(RUN, identity=identity)).series


def test_segments_tell_who_wrote_them_and_what_they_lost() -> None:
    first = replace(WRITER, ended_at=NOW - timedelta(minutes=30), reference_digest=DIGEST)
    resumed = replace(WRITER, index=1, resumed_from_step=1_200, reference_digest=OTHER)
    second = replace(resumed, n_lost=2, lost_first_step=40, lost_last_step=52, lost_reason="the journal was damaged")
    one, two = view(RUN, first, second).segments

    assert (one.began, one.ended, one.writer, one.resumed_from, one.lost) == ("13:30 UTC", "14:00 UTC", "process 7 on gpu-1", "started", "")
    assert (two.ended, two.resumed_from) == ("no sign of life since 14:03 UTC", "resumed from step 1,200")
    assert two.lost == "2 steps (between 40 and 52): the journal was damaged"
    assert (one.is_other_reference, two.is_other_reference) == (False, True)


def test_a_segment_that_is_being_written_says_so() -> None:
    assert [one.ended for one in view(RUN, WRITER, live_segment=0).segments] == ["being written"]


def test_the_ledger_is_followed_from_where_it_was_read() -> None:
    entries = [make_entry(3, "run_opened", {}), make_entry(4, "steps", {"n_steps": 3}), make_entry(9, "steps", {"n_steps": 1})]
    whole = RunLedger().follow(entries)

    assert RunLedger().follow(entries[:2]).follow(entries[2:]) == whole
    assert (whole.seq, whole.hash, whole.n_entries, whole.n_steps) == (9, entries[-1].hash, 3, 4)


@pytest.mark.parametrize(
    ("n_covered", "n_steps", "said"),
    [
        (4, 4, "The ledger covers all 4 steps."),
        (1, 1, "The ledger covers the one step."),
        (1, 4, "The ledger covers 1 of 4 steps; the others have no entry in it."),
    ],
)
def test_how_many_steps_the_ledger_covers_is_said(n_covered: int, n_steps: int, said: str) -> None:
    assert view(n_steps=n_steps, ledger=RunLedger(seq=2, n_entries=2, n_steps=n_covered)).ledger_statement == said


def test_an_imported_run_names_its_file_and_when() -> None:
    origin = {"digest": DIGEST, "format": "trl-console", "file": "train.log", "part": None}
    imported = view(
        replace(RUN, identity={"imported": origin}), ledger=RunLedger().follow([make_entry(1, "run_imported", origin)])
    ).imported

    assert imported is not None
    assert (imported.format, imported.file, imported.digest, imported.part) == ("trl-console", "train.log", DIGEST, "")
    assert imported.at == NOW + timedelta(seconds=1)


def test_a_run_whose_writer_is_dead_shows_its_last_sign_of_life() -> None:
    assert silence_of(silent=timedelta(minutes=27)) == "no sign of life since 14:03 UTC"


@pytest.mark.parametrize("run", [replace(RUN, status="finished"), replace(RUN, status="failed")])
def test_a_run_that_is_over_owes_no_sign_of_life(run: Run) -> None:
    assert silence_of(run, silent=timedelta(days=1)) is None


def test_a_writer_that_lives_may_be_silent() -> None:
    assert silence_of(is_live=True, silent=timedelta(hours=5)) is None


@pytest.mark.parametrize(("silent", "is_silent"), [(timedelta(seconds=10), False), (timedelta(days=1), True)])
def test_a_run_that_was_written_without_a_lease_is_judged_by_its_steps(silent: timedelta, is_silent: bool) -> None:
    found = silence_of(replace(RUN, started_at=NOW - silent - timedelta(minutes=10)), writer=None, silent=silent)

    assert (found is not None) is is_silent


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (NOW, "14:30 UTC"),
        (NOW - timedelta(days=1), "21 Nov, 14:30 UTC"),
        (NOW - timedelta(days=400), "18 Oct 2025, 14:30 UTC"),
    ],
)
def test_a_time_carries_its_day_where_it_is_another_one(moment: datetime, said: str) -> None:
    assert format_time(moment, now=NOW) == said


@pytest.mark.parametrize(
    ("n_steps", "is_live", "said"),
    [
        (120, True, "120 steps of run demo wait in its journal: its trainer carries them over"),
        (1, True, "1 step of run demo waits in its journal: its trainer carries it over"),
        (
            2,
            False,
            "2 steps of run demo wait in its journal: its trainer is gone; the next klaudit command that writes to this store carries them over",
        ),
    ],
)
def test_steps_that_wait_say_who_carries_them_over(n_steps: int, is_live: bool, said: str) -> None:
    assert state_waiting("demo", n_steps, is_live=is_live) == said


@pytest.mark.parametrize(("silent_s", "stalled"), [(30, False), (119, False), (121, True)])
def test_a_run_is_stalled_after_ten_of_its_own_steps(silent_s: int, stalled: bool) -> None:
    started = NOW - timedelta(seconds=120 + silent_s)

    found = is_stalled(started_at=started, last_logged_at=started + timedelta(seconds=120), n_steps=10, now=NOW)

    assert found is stalled


@pytest.mark.parametrize(("silent_s", "stalled"), [(59, False), (61, True)])
def test_a_fast_run_is_given_a_minute(silent_s: int, stalled: bool) -> None:
    last = NOW - timedelta(seconds=silent_s)

    assert is_stalled(started_at=last - timedelta(seconds=1), last_logged_at=last, n_steps=100, now=NOW) is stalled
