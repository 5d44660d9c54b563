"""Recorders whose process is forked: its child must not write what the parent writes, nor inherit a lock that nobody gives back."""

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klaudit.workflows.recorder.run_recorder import RunRecorder

RECORDERS: "weakref.WeakSet[RunRecorder]" = weakref.WeakSet()
"""Those of this process."""

_held: "list[RunRecorder]" = []
"""Those whose worker is kept out of the store by a fork that is under way."""


def _before_fork() -> None:
    """A process that is forked while a thread of it is inside SQLite leaves its child with locks that nobody gives back."""
    _held.extend(recorder for recorder in list(RECORDERS) if recorder.keep_out())


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().let_in()


def _after_fork_in_child() -> None:
    _held.clear()
    for recorder in list(RECORDERS):
        recorder.step_outside()
    RECORDERS.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
