"""Processes of this host, told from later ones with their numbers."""

import os
import socket
from pathlib import Path

from klaudit.records.session import Session


def is_session_alive(session: Session) -> bool | None:
    """Whether the process that began a session on this host still runs; one of another host counts as alive. As `is_process_alive`."""
    return session.host != socket.gethostname() or is_process_alive(session.pid, session.process_started)


def is_process_alive(pid: int, started: str | None) -> bool | None:
    """Whether a process of this host runs, and is the one that began at `started` and not a later one with its number.

    None: that cannot be told from here, because it began before this boot or in another container, where numbers mean other processes.
    """
    here = describe_process_start(os.getpid())
    if started is not None and here is not None and started.rpartition("/")[0] != here.rpartition("/")[0]:
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    now = _read_start(pid)
    return started is None or now is None or now == started.rpartition("/")[2]


def describe_process_start(pid: int) -> str | None:
    """Boot, process-id namespace and start time of a process; None where the system does not tell.

    Source: proc(5), field 22 of `/proc/PID/stat`; pid_namespaces(7).
    """
    start = _read_start(pid)
    if start is None:
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None
    return f"{boot}/{namespace}/{start}"


def _read_start(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
