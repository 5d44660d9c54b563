"""What becomes of steps when something below the recorder fails: they wait, they are stored once, or they are counted."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from klaudit.audit import PRESETS
from klaudit.errors import InvalidRecord, RunInUse, RunNotFound
from klaudit.records import KLBudget, KLReading, Run, TextSample, TokenScore
from klaudit.records.session import Resume
from klaudit.store import Store, open_store
from klaudit.workflows.audits import audit_stored_run
from klaudit.workflows.ledger import verify_ledger
from klaudit.workflows.recorder.run_recorder import RunRecorder
from klaudit.workflows.recorder.start import start_recording
from tests.workflows.recordings import FULL, NOW, Collector, begin, make_step, record_all

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Told:
    """A reporter that keeps what it is told."""

    warnings: list[str] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def warn(self, line: str) -> None:
        self.warnings.append(line)

    def note(self, what: str, error: Exception) -> None:
        del what
        self.failures.append(error)


@contextmanager
def hold_lock(url: str) -> Iterator[None]:
    """What another process does that holds the store's lock: a reader or a writer waits for it."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


def log_all(recorder: RunRecorder, steps: Sequence[int]) -> None:
    for step in steps:
        recorder.log(make_step(step, 0.01 * step, segment=recorder.segment))


def list_steps(store: Store, name: str = "run") -> list[tuple[int, int]]:
    return [(one.segment, one.step) for one in store.steps.list(store.runs.get(name).id)]


def start(url: str, told: Told | None = None, **options: object) -> RunRecorder:
    run = Run(id="", name="run", started_at=NOW, batch_size=16, series={"kl": FULL})
    return start_recording(url, run=run, policy=PRESETS["default"], reporter=told, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.workflows.recorder.carrier.BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr("klaudit.workflows.recorder.run_recorder.LAST_STEPS_TIMEOUT_S", 2.0)


def test_a_lock_that_another_holds_stops_nobody_and_loses_nothing(store_url: str, store: Store) -> None:
    told = Told()
    recorder = start(store_url, told)
    with hold_lock(store_url):
        log_all(recorder, range(1, 101))
        assert not recorder.flush(0.5)
    assert recorder.flush(20)
    recorder.close()
    assert list_steps(store) == [(0, step) for step in range(1, 101)]
    assert (recorder.n_lost, told.failures) == (0, [])
    assert ["wait in" in told.warnings[0], "takes steps again" in told.warnings[1]] == [True, True]


def test_a_store_that_is_locked_at_the_start_gets_the_run_when_it_is_free(store_url: str, store: Store) -> None:
    with begin(store_url) as earlier:
        record_all(earlier, [0.1])
    told = Told()
    with hold_lock(store_url):
        recorder = start(store_url, told, budgets=[KLBudget(0.5, "nats_per_sequence", owner="me")])
        log_all(recorder, range(1, 81))
        assert recorder.run.name == "run"
    assert recorder.flush(20)
    recorder.close()
    assert (recorder.run.name, store.runs.get("run-2").status) == ("run-2", "finished")
    assert list_steps(store, "run-2") == [(0, step) for step in range(1, 81)]
    assert [one.code for one in store.findings.list(recorder.run.id)] == ["KLA101"]
    assert tuple(store.findings.list(recorder.run.id)) == audit_stored_run(store, "run-2").findings


def test_a_store_that_never_answers_leaves_a_journal_for_the_next_opening(store_url: str, store: Store) -> None:
    told = Told()
    with hold_lock(store_url):
        recorder = start(store_url, told)
        log_all(recorder, range(1, 11))
        recorder.close()
        assert "they wait" in told.warnings[-1]
        (waiting,) = count_in_a_process_of_its_own(store_url)
        assert waiting == "run 10 live"


def count_in_a_process_of_its_own(url: str) -> list[str]:
    code = (
        "import sys; from pathlib import Path; from klaudit.store.journal.claim import claim_journal; from klaudit.store.journal.content import read_journal; from klaudit.store.journal.directories import find_journals, list_journal_directories\n"
        "for path in find_journals(list_journal_directories(sys.argv[1])):\n"
        "    content = read_journal(path)\n"
        "    n = sum(entry[0] == 'step' for entry in content.entries)\n"
        "    with claim_journal(path) as is_dead: print(content.session.run.name, n, 'dead' if is_dead else 'live')"
    )
    return subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True).stdout.splitlines()


def test_more_steps_than_memory_holds_wait_in_the_journal_alone(store_url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.workflows.recorder.queue.MOST_WAITING", 7)
    monkeypatch.setattr("klaudit.workflows.recorder.queue.BATCH", 5)
    recorder = start(store_url, budgets=[KLBudget(0.2, "nats_per_sequence")])
    with hold_lock(store_url):
        log_all(recorder, range(1, 61))
        recorder.add_checkpoint(step=60, path="/somewhere/checkpoint-60")
    log_all(recorder, range(61, 71))
    assert recorder.flush(20)
    log_all(recorder, range(71, 81))
    recorder.close()
    assert list_steps(store) == [(0, step) for step in range(1, 81)]
    assert [one.step for one in store.checkpoints.list(recorder.run.id)] == [60]
    assert tuple(store.findings.list(recorder.run.id)) == audit_stored_run(store, "run").findings
    assert verify_ledger(store).is_intact


@pytest.mark.parametrize("ending", ["recovers", "is killed"])
def test_with_every_disk_full_lost_equals_counted(store_url: str, store: Store, ending: str) -> None:
    """A process whose files may not grow stands for full disks: neither the store nor the journal takes more."""
    command = [sys.executable, "-m", "tests.workflows.full_disk", store_url, ending]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    n_logged, n_lost = map(int, done.stdout.split())
    with open_store(store_url) as reopened:
        run = reopened.runs.get("run")
        stored = [one.step for one in reopened.steps.list(run.id)]
        (segment,) = reopened.runs.segments(run.id)
        assert n_lost > 0
        assert len(stored) + segment.n_lost == n_logged
        assert segment.n_lost == n_lost
        missing = sorted(set(range(1, n_logged + 1)) - set(stored))
        assert (segment.lost_first_step, segment.lost_last_step) == (missing[0], missing[-1])
        (finding,) = [one for one in audit_stored_run(reopened, "run").findings if one.code == "KLA304"]
        assert finding.value == n_lost
        assert verify_ledger(reopened).is_intact


def test_a_store_file_that_is_taken_away_is_made_anew_and_the_run_goes_on(store_url: str, tmp_path: Path) -> None:
    told = Told()
    recorder = start(store_url, told)
    log_all(recorder, [1, 2])
    assert recorder.flush()
    for path in tmp_path.glob("klaudit.db*"):
        if path.is_file():
            path.unlink()
    log_all(recorder, [3, 4])
    assert recorder.flush()
    recorder.close()
    with open_store(store_url) as anew:
        assert list_steps(anew) == [(0, 3), (0, 4)]
    assert ["taken away" in line for line in told.warnings] == [True]


def test_a_run_that_somebody_deletes_meanwhile_is_begun_anew(store_url: str, store: Store) -> None:
    recorder = start(store_url, Told())
    recorder.declare_series({"kl_other": FULL}, framework="trl", algorithm="ppo")
    log_all(recorder, [1, 2])
    assert recorder.flush()
    store.runs.delete(recorder.run.id)
    log_all(recorder, [3, 4])
    assert recorder.flush()
    recorder.close()
    assert list_steps(store) == [(0, 3), (0, 4)]
    assert (store.runs.get("run").framework, set(store.runs.get("run").series)) == ("trl", {"kl", "kl_other"})


def test_a_step_that_no_store_can_hold_is_counted_and_the_others_are_kept(store_url: str, store: Store) -> None:
    told = Told()
    recorder = start(store_url, told)
    bad = replace(make_step(2, 0.2), kl=KLReading(FULL, 0.2, n_sequences=2**70))
    for record in (make_step(1, 0.1), bad, make_step(3, 0.3)):
        recorder.log(record)
    assert recorder.flush()
    recorder.close()
    assert list_steps(store) == [(0, 1), (0, 3)]
    (finding,) = [one for one in store.findings.list(recorder.run.id) if one.code == "KLA304"]
    assert (recorder.n_lost, finding.value, finding.first_step) == (1, 1.0, 2)
    assert told.failures


def test_a_clock_that_goes_backwards_changes_no_order(store_url: str, store: Store) -> None:
    recorder = start(store_url)
    for step in range(1, 6):
        recorder.log(replace(make_step(step, 0.1), logged_at=NOW - timedelta(hours=step)))
    recorder.close()
    assert list_steps(store) == [(0, step) for step in range(1, 6)]


def test_a_fork_records_nothing_and_does_not_keep_the_journal_from_being_claimed(store_url: str, store: Store) -> None:
    recorder = start(store_url)
    log_all(recorder, [1])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            recorder.log(make_step(2, 0.2))
            os.write(writer, b"recorded")
        except InvalidRecord as error:
            os.write(writer, str(error).encode())
        finally:
            recorder.close()
            os._exit(0)
    os.waitpid(child, 0)
    assert b"this one was forked from it" in os.read(reader, 1000)
    log_all(recorder, [2, 3])
    recorder.close()
    assert list_steps(store) == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize(("ending", "status"), [("pass", "finished"), ("raise SystemExit(3)", "finished"), ("1 / 0", "failed")])
def test_an_interpreter_that_ends_without_closing_loses_nothing(store_url: str, store: Store, ending: str, status: str) -> None:
    code = (
        "import sys; from tests.workflows.test_nothing_lost import start, log_all\n"
        f"recorder = start(sys.argv[1]); log_all(recorder, range(1, 31))\n{ending}"
    )
    subprocess.run([sys.executable, "-c", code, store_url], cwd=ROOT, check=False, capture_output=True, timeout=60)
    assert list_steps(store) == [(0, step) for step in range(1, 31)]
    assert store.runs.get("run").status == status


HOLDER = """
import sys, time
from tests.workflows.test_nothing_lost import start, log_all
recorder = start(sys.argv[1])
log_all(recorder, range(1, 6))
print("logged", flush=True)
time.sleep(60)
"""


@contextmanager
def another_writer(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that records five steps of `run` and stays."""
    writer = subprocess.Popen([sys.executable, "-c", HOLDER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "logged\n"
        yield writer
    finally:
        writer.kill()
        writer.wait()


def test_a_live_writer_is_not_joined_and_a_killed_one_is_succeeded(store_url: str) -> None:
    told = Told()
    with another_writer(store_url) as writer:
        with pytest.raises(RunInUse, match=rf"process {writer.pid} on .* writes its segment 0"):
            start(store_url, resumed_from_step=5)
        with start(store_url, told, resumed_from_step=5, in_use="rename") as renamed:
            assert renamed.run.name == "run-2"
        assert any("recorded as run 'run-2'" in line for line in told.warnings)
    with start(store_url, resumed_from_step=5) as successor:
        assert (successor.run.name, successor.segment) == ("run", 1)
        log_all(successor, [6])
    with open_store(store_url) as store:
        assert list_steps(store) == [*((0, step) for step in range(1, 6)), (1, 6)]
        assert not list((Path(store_url.removeprefix("sqlite:///") + ".journal")).iterdir())
        assert verify_ledger(store).is_intact


def test_a_lease_of_another_host_ends_by_itself(store_url: str, store: Store) -> None:
    with start(store_url) as recorder:
        log_all(recorder, [1])
    (segment,) = store.runs.segments(recorder.run.id)
    now = datetime.now(UTC)
    with sqlite3.connect(store_url.removeprefix("sqlite:///")) as connection:
        for until, is_held in ((now + timedelta(minutes=1), True), (now - timedelta(seconds=1), False)):
            connection.execute(
                "UPDATE segments SET ended_at = NULL, host = 'elsewhere', lease_until = ?", [until.isoformat().replace("+00:00", "Z")]
            )
            connection.commit()
            if is_held:
                with pytest.raises(RunInUse, match="elsewhere"):
                    start(store_url, resumed_from_step=1)
            else:
                start(store_url, resumed_from_step=1).close()
    assert segment.lease_until is not None


@pytest.mark.parametrize(
    ("resume", "resumed_from_step", "name"),
    [("auto", None, "run-2"), ("auto", 1, "run"), ("never", 1, "run-2"), ("must", 1, "run"), ("must", None, "run")],
)
def test_resume_says_which_run_a_trainer_goes_on_with(store_url: str, resume: Resume, resumed_from_step: int | None, name: str) -> None:
    with start(store_url) as first:
        log_all(first, [1])
    with start(store_url, resume=resume, resumed_from_step=resumed_from_step) as second:
        assert second.run.name == name


def test_a_run_that_must_be_there_is_asked_for_by_name(store_url: str) -> None:
    with pytest.raises(RunNotFound, match=r'resume="must"'):
        start(store_url, resume="must")


def test_without_a_journal_steps_wait_in_memory_and_a_person_is_told(store_url: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = Told()
    with start(store_url, told, journals=[tmp_path / "file"]) as recorder:
        assert recorder.journal_directory is None
        log_all(recorder, [1, 2])
    assert list_steps(store) == [(0, 1), (0, 2)]
    assert any("memory alone" in line for line in told.warnings)


def test_batch_durability_writes_to_the_journal_only_what_memory_does_not_hold(
    store_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klaudit.workflows.recorder.queue.MOST_WAITING", 30)
    with start(store_url, durability="batch") as recorder:
        assert recorder.journal_directory is not None
        with hold_lock(store_url):
            log_all(recorder, range(1, 31))
            assert count_in_a_process_of_its_own(store_url) == ["run 0 live"]
            log_all(recorder, range(31, 101))
            assert count_in_a_process_of_its_own(store_url) == ["run 70 live"]
        assert recorder.flush(20)
    assert list_steps(store) == [(0, step) for step in range(1, 101)]
    assert recorder.n_lost == 0


def test_an_entry_that_no_store_can_hold_stops_nothing(store_url: str, store: Store) -> None:
    told = Told()
    recorder = start(store_url, told)
    log_all(recorder, [1])
    recorder.add_checkpoint(step=1, path="/somewhere/\ud800")
    log_all(recorder, [2])
    assert recorder.flush()
    recorder.close()
    assert list_steps(store) == [(0, 1), (0, 2)]
    assert [type(error) for error in told.failures] == [InvalidRecord]


def test_a_store_of_a_relative_url_stays_where_it_was_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for directory in (here, elsewhere):
        directory.mkdir()
    monkeypatch.chdir(here)
    recorder = start("sqlite:///klaudit.db")
    log_all(recorder, [1])
    assert recorder.flush()
    monkeypatch.chdir(elsewhere)
    for path in here.glob("klaudit.db*"):
        if path.is_file():
            path.unlink()
    log_all(recorder, [2])
    assert recorder.flush()
    recorder.close()
    assert list(elsewhere.iterdir()) == []
    with open_store(f"sqlite:///{here}/klaudit.db") as anew:
        assert list_steps(anew) == [(0, 2)]
    assert recorder.store_url == "sqlite:///klaudit.db"


def test_what_is_refused_is_counted_once_however_often_the_store_is_tried(store_url: str) -> None:
    told = Told()
    recorder = start(store_url, told, durability="batch")
    with hold_lock(store_url):
        recorder.log_numbers(1, kl=0.1)
        recorder.log_numbers(2, kl="high")  # type: ignore[arg-type]
        recorder.log_numbers(3, kl=0.3)
        assert not recorder.flush(1.0)
    assert recorder.flush(20)
    recorder.close()
    assert (recorder.n_lost, len(told.failures)) == (1, 1)


def test_a_step_that_a_constraint_refuses_is_counted_and_shown_and_keeps_nothing_back(store_url: str, store: Store) -> None:
    told = Told()
    recorder = start(store_url, told, budgets=[KLBudget(0.05, "nats_per_sequence")])
    with store._database.writing() as connection:
        connection.exec_driver_sql("CREATE TRIGGER full BEFORE INSERT ON steps WHEN NEW.step = 3 BEGIN SELECT RAISE(ABORT, 'no room'); END")
    log_all(recorder, range(1, 11))
    assert recorder.flush(20)
    recorder.close()
    assert [step for _, step in list_steps(store)] == [1, 2, *range(4, 11)]
    assert (recorder.n_lost, store.runs.get("run").status) == (1, "finished")
    assert {one.code for one in store.findings.list(recorder.run.id)} == {"KLA101", "KLA304"}
    assert any("refused a row" in str(error) for error in told.failures)


def test_a_finding_that_a_constraint_refuses_is_told_to_nobody_and_keeps_nothing_back(store_url: str, store: Store) -> None:
    told, collector = Told(), Collector()
    recorder = start(store_url, told, budgets=[KLBudget(0.05, "nats_per_sequence")], channels=[collector])
    with store._database.writing() as connection:
        connection.exec_driver_sql("CREATE TRIGGER full BEFORE INSERT ON findings BEGIN SELECT RAISE(ABORT, 'no room'); END")
    log_all(recorder, range(1, 11))
    assert recorder.flush(20)
    recorder.close()
    assert (len(list_steps(store)), recorder.n_lost, store.runs.get("run").status) == (10, 0, "finished")
    assert (store.findings.list(recorder.run.id), collector.alerts) == ([], [])
    assert any("refused a row" in str(error) for error in told.failures)


def test_a_handler_of_a_signal_may_close_the_run_in_the_middle_of_a_step(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klaudit.workflows.recorder.run_recorder.LAST_STEPS_TIMEOUT_S", 0.2)
    recorder = start(store_url)
    with recorder._queue.lock:  # as inside of log()
        recorder.close()
    with pytest.raises(InvalidRecord, match="before the run is closed"):
        recorder.log(make_step(1, 0.1))


def test_a_run_that_was_closed_while_the_store_was_away_has_finished(store_url: str, store: Store) -> None:
    code = (
        "import sys; from tests.workflows.test_nothing_lost import start, log_all, hold_lock\n"
        "from klaudit.workflows.recorder import carrier, run_recorder\n"
        "carrier.BUSY_TIMEOUT_S, run_recorder.LAST_STEPS_TIMEOUT_S = 0.1, 0.5\n"
        "recorder = start(sys.argv[1]); log_all(recorder, range(1, 6)); assert recorder.flush()\n"
        "with hold_lock(sys.argv[1]): recorder.close()\n"
        "import os; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, store_url], cwd=ROOT, check=True, capture_output=True, timeout=60)
    with open_store(store_url) as reopened:
        assert (reopened.runs.get("run").status, len(list_steps(reopened))) == ("finished", 5)


def test_a_brake_that_could_not_look_at_a_step_looks_at_it_with_the_next(store_url: str) -> None:
    recorder = start(store_url, budgets=[KLBudget(1.0, "nats_per_sequence", on="value", action="stop")])
    with recorder._audit.lock:
        assert recorder.log(make_step(1, 50.0)) == ()
    found = recorder.log(make_step(2, 0.1))
    recorder.close()
    assert ("KLA101", 1) in [(finding.code, finding.detected_step) for finding in found]


def test_a_reporter_that_fails_does_not_end_the_recording(store_url: str, store: Store) -> None:
    class Broken(Told):
        def warn(self, line: str) -> None:
            raise RuntimeError(line)

    recorder = start(store_url, Broken())
    with hold_lock(store_url):
        log_all(recorder, [1, 2])
        assert not recorder.flush(0.5)
    assert recorder.flush(20)
    recorder.close()
    assert list_steps(store) == [(0, 1), (0, 2)]


def test_a_trainer_that_ends_without_saying_so_has_failed(store_url: str, store: Store) -> None:
    code = (
        "import sys; from tests.workflows.test_nothing_lost import start, log_all\n"
        "recorder = start(sys.argv[1], must_be_closed=True); log_all(recorder, [1, 2])\n"
        "try: 1 / 0\nexcept ZeroDivisionError: sys.exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, store_url], cwd=ROOT, check=False, capture_output=True, timeout=60)
    assert (store.runs.get("run").status, len(list_steps(store))) == ("failed", 2)


def test_texts_that_would_fill_memory_wait_in_the_journal(store_url: str, store: Store) -> None:
    long = tuple(TokenScore(" word", -1.0, -1.5, 0.1) for _ in range(16_000))
    recorder = start(store_url)
    with hold_lock(store_url):
        for step in range(1, 41):
            recorder.log(make_step(step, 0.1), samples=[TextSample(step, "p", "c", long)])
        assert len(recorder._queue) < 20
    assert recorder.flush(60)
    recorder.close()
    assert (len(list_steps(store)), len(store.samples.list(recorder.run.id))) == (40, 40)
