"""What a person reads in place of a traceback when the store cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from klaudit.errors import InvalidConfig, KlauditError, NotAStore, RunNotFound, SchemaTooNew, SchemaTooOld, StoreUnreachable
from plain_text import plain

ADVICE: tuple[tuple[type[KlauditError], str, str, str], ...] = (
    (SchemaTooOld, "This store was made by an older klaudit", "Bring it up to date; its data stays.", "klaudit db upgrade"),
    (SchemaTooNew, "This store was made by a newer klaudit", "Update klaudit to read it.", 'pip install --upgrade "klaudit[dashboard]"'),
    (NotAStore, "This is not a klaudit store", "Name another store.", "klaudit dashboard --store sqlite:///klaudit.db"),
    (
        StoreUnreachable,
        "There is no store here yet",
        "Load the recorded sample runs to look around, or name a store.",
        "klaudit demo --replay",
    ),
    (InvalidConfig, "The settings cannot be read", "Correct klaudit.toml or the environment variable, then try again.", ""),
    (RunNotFound, "This run is gone", "It was deleted while this page was open. Go back to the list of runs.", ""),
    (KlauditError, "klaudit could not do this", "Correct what the message says, then try again.", ""),
)
"""Error, title, what to do, command; the first that fits is shown."""


@contextmanager
def explain_problems() -> Iterator[None]:
    """Show what klaudit raises as a page that says what to do."""
    try:
        yield
    except KlauditError as error:
        explain(error)


def explain(error: KlauditError) -> None:
    """The page in place of the traceback."""
    _, title, advice, command = next(one for one in ADVICE if isinstance(error, one[0]))
    with st.container(border=True, width=760):
        st.subheader(title)
        st.markdown(advice)
        if command:
            st.code(command, language="bash")
        st.caption(plain(str(error)))
        st.button("Try again", icon=":material/refresh:")
