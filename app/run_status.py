"""How a run stands, in a badge or two: what it says of itself, and what its writer's signs of life say."""

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
    """Badges; a run that nobody writes does not read as running."""
    icon, color = STATUS[status]
    if silence is not None:
        st.badge(plain(silence), icon=":material/heart_broken:", color="orange")
    else:
        st.badge(status, icon=icon, color=color)
    if imported_from:
        st.badge(plain(f"imported from {imported_from}"), icon=":material/upload_file:", color="gray")
