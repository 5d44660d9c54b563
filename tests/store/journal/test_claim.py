import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from klaudit.store.journal.claim import claim_journal, is_journal_held
from klaudit.store.journal.writer import Journal
from klaudit.store.process import describe_process_start
from tests.store.journal.examples import make_session


def refuse_locks(*_: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize(
    ("started", "age_s", "is_free"),
    [("own", 7200.0, False), ("an earlier", 0.0, True), ("of another boot", 0.0, False), ("of another boot", 7200.0, True)],
)
def test_where_there_are_no_locks_the_process_tells_whether_a_journal_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str, age_s: float, is_free: bool
) -> None:
    own = describe_process_start(os.getpid())
    known = {"own": own, "an earlier": f"{own}0", "of another boot": f"other/{own}"}[started]
    monkeypatch.setattr(fcntl, "flock", refuse_locks)
    journal = Journal([tmp_path], make_session(host=socket.gethostname(), process_started=known))
    journal.leave()
    path = tmp_path / "s1.journal"
    os.utime(path, (time.time() - age_s,) * 2)
    assert is_journal_held(path) is not is_free
    with claim_journal(path) as is_ours:
        assert is_ours is is_free


HOLD = """
import sys, time
from pathlib import Path
from tests.store.journal.examples import make_session
from klaudit.store.journal.writer import Journal
journal = Journal([Path(sys.argv[1])], make_session())
print("held", flush=True)
time.sleep(60)
"""


def test_a_journal_is_claimed_when_its_writer_is_dead_and_not_before(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "held\n"
    path = tmp_path / "s1.journal"
    with claim_journal(path) as is_ours:
        assert not is_ours
    writer.kill()
    writer.wait()
    with claim_journal(path) as is_ours, claim_journal(path) as is_somebody_elses:
        assert (is_ours, is_somebody_elses) == (True, False)
    with claim_journal(tmp_path / "gone.journal") as is_ours:
        assert not is_ours
