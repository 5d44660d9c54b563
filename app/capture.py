"""The panel What was recorded: what each KL is, who wrote the run, what trained and was trained, what the ledger holds of it."""

import pandas as pd
import streamlit as st

from charts import to_sentence
from klaudit.report.views import CaptureView, ImportedFrom, RecordedCode, RecordedPart, RunLedger, format_count
from plain_text import plain

N_SEGMENTS = 50
"""Segments that are listed, the last ones; the rest is counted."""


def show_capture(view: CaptureView) -> None:
    """A sentence, then one tab for each question."""
    st.subheader("What was recorded", anchor=False)
    st.markdown(plain(to_sentence(view.statement)))
    if view.imported is not None:
        show_import(view.imported)
    if view.n_lost:
        verb = "was" if view.n_lost == 1 else "were"
        st.error(
            f"{format_count(view.n_lost, 'step')} {verb} logged and could not be kept; the segments say which and why.",
            icon=":material/error:",
        )
    kls, segments, identity, ledger = st.tabs([f"KLs ({len(view.series)})", f"Segments ({len(view.segments)})", "Identity", "Ledger"])
    with kls:
        show_series(view)
    with segments:
        show_segments(view)
    with identity:
        show_identity(view)
    with ledger:
        show_ledger(view.ledger, view.ledger_statement)


def show_import(imported: ImportedFrom) -> None:
    """Where an imported run comes from."""
    when = "" if imported.at is None else f" on {imported.at:%Y-%m-%d at %H:%M} UTC"
    part = f", part {imported.part}" if imported.part else ""
    st.info(
        plain(f"Imported from {imported.file}{part} ({imported.format}){when}. klaudit did not see it train."),
        icon=":material/upload_file:",
    )
    if imported.digest is not None:
        show_digest(imported.digest, of="of what was imported")


def show_series(view: CaptureView) -> None:
    """One line a KL."""
    if not view.series:
        st.caption("No KL was declared.")
        return
    rows = [
        {
            "Series": plain(one.key) + (" :blue-badge[governs]" if one.is_governing else ""),
            "What it is": plain(one.name),
            "Estimator": plain(one.estimator),
            "Unit": plain(one.unit),
            "Aggregation": plain(one.aggregation),
            "Direction": plain(one.direction),
            "Temperature": plain(one.temperature),
            "Trainer's own key": plain(one.source),
        }
        for one in view.series
    ]
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt="; ".join(one.label for one in view.series))
    if any(one.is_governing for one in view.series):
        st.caption("Budgets and change rules look at the series that governs.")
    for note in view.notes:
        st.markdown(f":material/info: {plain(note)}")


def show_segments(view: CaptureView) -> None:
    """One line a segment."""
    if not view.segments:
        st.caption("No segment was recorded.")
        return
    shown = view.segments[-N_SEGMENTS:]
    has_losses, has_references = any(one.lost for one in shown), any(one.reference_digest for one in shown)
    rows = [
        {
            "Segment": str(one.index),
            "Began": plain(one.began),
            "Ended": plain(one.ended),
            "Written by": plain(one.writer),
            "Start": plain(one.resumed_from),
        }
        | ({"Lost": plain(one.lost or "nothing")} if has_losses else {})
        | (
            {"Reference": shorten(one.reference_digest) + (" :orange-badge[changed]" if one.is_other_reference else "")}
            if has_references
            else {}
        )
        for one in shown
    ]
    st.table(pd.DataFrame(rows), border="horizontal", hide_index=True, alt=f"{format_count(len(view.segments), 'segment')} of the run")
    if len(shown) < len(view.segments):
        st.caption(f"The last {len(shown)} of {len(view.segments):,} segments.")
    references = {one.reference_digest: one.index for one in reversed(shown) if one.reference_digest is not None}
    if len(references) > 1:
        st.warning("The reference changed: a KL is comparable only among segments with the same one.", icon=":material/compare_arrows:")
        for digest, index in reversed(references.items()):
            show_digest(digest, of=f"reference from segment {index} on")


def show_identity(view: CaptureView) -> None:
    """Models and tokenizer by content, packages, code."""
    if not (view.parts or view.packages or view.code):
        st.caption("Nothing was recorded of what trained.")
        return
    with st.grid(4, min_column_width=250):
        for part in view.parts:
            with st.container(border=True, height="stretch", gap="xsmall"):
                show_part(part)
    packages, code = st.columns(2)
    with packages:
        st.markdown("**Packages**")
        versions = " ".join(f":gray-badge[{plain(f'{name} {version}')}]" for name, version in view.packages.items())
        st.markdown(versions or "no versions were recorded")
        if view.platform:
            st.caption(plain(view.platform))
    with code:
        st.markdown("**Code**")
        show_code(view.code)


def show_part(part: RecordedPart) -> None:
    """One part with its digest."""
    st.caption(plain(part.title))
    if part.name:
        st.markdown(f"**{plain(part.name)}**")
    if part.details:
        st.caption(plain(part.details))
    if part.digest is None:
        st.markdown(f":material/help: {plain(part.digest_of)}")
    else:
        show_digest(part.digest, of=part.digest_of)


def show_code(code: RecordedCode | None) -> None:
    """Commit, and whether the files were as committed."""
    if code is None:
        st.markdown("no git commit was recorded")
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.code(code.commit, language=None, width=230)
        if code.is_dirty is None:
            st.badge("changes not known", icon=":material/help:", color="gray")
        elif code.is_dirty:
            st.badge("with uncommitted changes", icon=":material/edit:", color="orange")
        else:
            st.badge("as committed", icon=":material/check:", color="green")
    where = " of ".join(one for one in (code.branch, code.remote) if one)
    if where:
        st.caption(plain(where))


def show_ledger(ledger: RunLedger, statement: str) -> None:
    """The run's last entry, and how many of its steps have one."""
    st.markdown(plain(statement))
    if ledger.n_entries:
        when = "" if ledger.at is None else f", written on {ledger.at:%Y-%m-%d at %H:%M:%S} UTC"
        entries = "Its one entry" if ledger.n_entries == 1 else f"The last of its {ledger.n_entries:,} entries"
        st.markdown(f"{entries} is number {ledger.seq:,} of the store{when}.")
        show_digest(ledger.hash, of="hash of the last entry")
    st.caption("This page shows what the ledger says. `klaudit ledger verify` checks it.")


def show_digest(digest: str, *, of: str) -> None:
    """Its head; the button copies all of it."""
    st.code(digest, language=None, width=230)
    if of:
        st.caption(plain(of))


def shorten(digest: str | None) -> str:
    """The first digits of a digest, for a table."""
    return "not recorded" if digest is None else plain(digest.removeprefix("sha256:")[:12])
