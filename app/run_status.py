"""How a run stands: what it says of itself, and what its writer's signs of life say."""

from collections.abc import Sequence
from typing import Literal

import streamlit as st

from klaudit.report.views import WaitingSteps
from plain_text import plain

Color = Literal["red", "orange", "blue", "green"]
STATUS: dict[str, tuple[str, Color]] = {
    "running": (":material/play_circle:", "blue"),
    "finished": (":material/check_circle:", "green"),
    "failed": (":material/cancel:", "red"),
}


def show_status(status: str, *, silence: str | None, imported_from: str) -> None:
    """Its status; a run that nobody writes does not read as running."""
    icon, color = STATUS[status]
    if silence is None:
        st.badge(status, icon=icon, color=color)
    else:
        st.markdown(f":orange[:material/heart_broken: {plain(silence)}]", width="content")
    if imported_from:
        st.markdown(f":gray[:material/upload_file: imported from {plain(imported_from)}]", width="content")


def show_waiting(waiting: Sequence[WaitingSteps], *, run_id: str | None = None) -> None:
    """Which steps are not in the store yet, of one run or of all."""
    for one in waiting:
        if run_id in (None, one.run_id):
            st.info(plain(one.statement), icon=":material/hourglass_top:")
