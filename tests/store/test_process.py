import os
import subprocess
import sys

from klaudit.store.process import describe_process_start, is_process_alive


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    started = describe_process_start(os.getpid())
    assert started is not None
    assert is_process_alive(os.getpid(), started)
    assert is_process_alive(os.getpid(), f"other/{started}") is None
    assert not is_process_alive(os.getpid(), started + "0")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not is_process_alive(child.pid, None)
