"""How a run stands: what it says of itself, and what its writer's signs of life say."""

from typing import Literal

import streamlit as st

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
