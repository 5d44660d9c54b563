"""Where the drift of one checkpoint is: by place, by prompt, by token, and in the text itself."""

import pandas as pd
import streamlit as st

import data
import location_charts as charts
from drift_charts import shorten
from klaudit.records.drift_shard import Sampler
from klaudit.report.views import format_count, format_percent, format_significant
from klaudit.report.views.drift import DIRECTIONS
from klaudit.report.views.drift_completion import CompletionPair, CompletionView
from klaudit.report.views.drift_location import LocationView, PromptDrift
from klaudit.report.views.drift_profile import CheckpointProfile
from plain_text import plain
from sampled_text import TOLD, draw_completion, draw_legend, draw_prompt, reveal_spaces

CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
PROMPTS_A_PAGE = 10
PAIRS_A_PAGE = 2

SAMPLERS: dict[str, Sampler] = {"reverse": "policy", "forward": "reference"}
"""Whose completions each direction is measured on."""

TOKENS_A_PAGE = 8

WRITTEN, PREFERRED = "written", "preferred"
TOKENS = {
    WRITTEN: (
        "By token that was written",
        "KL over the whole vocabulary at the places where this token was sampled, nats.",
        "KL by sampled token",
    ),
    PREFERRED: (
        "By token whose probability moved",
        "What this token adds to the KL at the places where it was among the largest contributors, nats.",
        "KL by token of the vocabulary",
    ),
}
"""Title and meaning of the two lists of tokens."""


def show_location(profile: CheckpointProfile, *, direction: str, command: str) -> None:
    """All of it for one checkpoint.

    Args:
        profile: of the checkpoint.
        direction: reverse or forward.
        command: what measures a checkpoint.
    """
    view = data.show_location(data.read_store_url(), profile.shards, SAMPLERS[direction]) if profile.shards else None
    if view is None:
        show_absent(f"No completion of {profile.label} was kept for {DIRECTIONS[direction]}.", command)
        return
    n, n_prompts = view.half
    few = f"; half of the drift is in {n:,} of {format_count(n_prompts, 'prompt')}" if n else ""
    st.caption(
        plain(
            f"{DIRECTIONS[direction]} on {format_count(view.n_sequences, 'completion')} by the {view.sampler}, "
            f"{format_significant(view.mean_nats)} nats/token on average{few}."
        )
    )
    with st.grid(2, min_column_width=380):
        with st.container(border=True, height="stretch"):
            show_positions(view, direction=direction)
        with st.container(border=True, height="stretch"):
            show_prompts(view)
    kinds = (WRITTEN, PREFERRED) if view.preferred else (WRITTEN,)
    with st.grid(len(kinds), min_column_width=380):
        for kind in kinds:
            with st.container(border=True, height="stretch"):
                show_tokens(view, kind=kind)
    with st.container(border=True):
        show_completions(view)


def show_absent(what: str, command: str) -> None:
    """What is not there, and what measures it."""
    st.markdown(f":material/visibility_off: {plain(what)}")
    st.code(command, language="bash", wrap_lines=True)


def show_positions(view: LocationView, *, direction: str) -> None:
    """KL over the place in the completion."""
    st.markdown("**By place in the completion**")
    st.caption("Mean KL before each token, nats/token; shaded: 95% interval over prompts. Below: how many completions are that long.")
    figure = charts.draw_positions(view.positions, direction=DIRECTIONS[direction])
    st.plotly_chart(figure, key=f"positions-{view.sampler}", config=CHART, alt=charts.describe_positions(view.positions))


def show_tokens(view: LocationView, *, kind: str) -> None:
    """The tokens that carry the drift."""
    title, told, alt = TOKENS[kind]
    rows, n = (view.written, view.n_written) if kind == WRITTEN else (view.preferred, view.n_preferred)
    st.markdown(f"**{title}**")
    rest = "" if n == len(rows) else f" The first {len(rows)} of {n:,} tokens."
    st.caption(f"{told}{rest}")
    start, stop = choose_page(len(rows), TOKENS_A_PAGE, key=f"tokens-page-{view.sampler}-{kind}")
    table = [
        {
            "Token": plain(show_edges(one.text)),
            "Sum, nats": format_significant(one.total),
            "Share of KL": format_percent(100 * one.share),
            "Mean, nats": format_significant(one.mean),
            "Places": f"{one.n:,}",
        }
        for one in rows[start:stop]
    ]
    st.table(pd.DataFrame(table), border="horizontal", hide_index=True, alt=alt)


def choose_page(n: int, size: int, *, key: str) -> tuple[int, int]:
    """First and stop of the rows of the chosen page; no choice where one page holds all."""
    n_pages = -(-n // size)
    page = st.pagination(n_pages, key=key) if n_pages > 1 else 1
    return (page - 1) * size, page * size


def show_edges(token: str) -> str:
    """A token with the space that it begins with made visible."""
    inner = token.lstrip(" ")
    return reveal_spaces(token) if not inner else "␣" * (len(token) - len(inner)) + reveal_spaces(inner)


def show_prompts(view: LocationView) -> None:
    """Prompts by drift, a page of them at a time."""
    st.markdown("**By prompt**")
    st.caption("Mean KL of a prompt's completions, nats/sequence, the furthest first; line: from its lowest completion to its highest.")
    start, stop = choose_page(len(view.prompts), PROMPTS_A_PAGE, key=f"prompts-page-{view.sampler}")
    rows = view.prompts[start:stop]
    figure = charts.draw_prompts(rows, reach=max(one.highest for one in view.prompts))
    st.plotly_chart(figure, key=f"prompts-{view.sampler}-{start}", config=CHART, alt=charts.describe_prompts(rows))


def show_completions(view: LocationView) -> None:
    """What both models wrote on one prompt, the most drifted one unless another is chosen."""
    st.markdown("**In the text**")
    by_index = {one.index: one for one in view.prompts}
    index = st.selectbox(
        "Prompt, the most drifted first",
        list(by_index),
        format_func=lambda one: name_prompt(by_index[one]),
        key=f"prompt-{view.sampler}",
    )
    prompt = by_index[index]
    pairs = data.show_completions(data.read_store_url(), prompt.shards, index)
    st.html(draw_prompt(prompt.prompt))
    st.html(draw_legend("full"))
    start, stop = choose_page(len(pairs), PAIRS_A_PAGE, key=f"pairs-page-{view.sampler}-{index}")
    for pair in pairs[start:stop]:
        show_pair(pair)


def name_prompt(one: PromptDrift) -> str:
    """A prompt in one line of a box."""
    slice = "" if one.slice is None else f" · {one.slice}"
    return f"{format_significant(one.mean)} nats/sequence · {shorten(one.prompt)}{slice}"


def show_pair(pair: CompletionPair) -> None:
    """Policy on the left, reference on the right."""
    policy, reference = st.columns(2)
    with policy.container(border=True, height="stretch", gap="xsmall"):
        show_completion(pair.policy, f"Policy, completion {pair.sample + 1}")
    with reference.container(border=True, height="stretch", gap="xsmall"):
        show_completion(pair.reference, f"Reference, completion {pair.sample + 1}")


def show_completion(completion: CompletionView | None, title: str) -> None:
    """One completion, its tokens shaded by KL."""
    st.markdown(f"**{title}**")
    if completion is None:
        st.caption("not measured: measure again with the forward direction")
        return
    st.caption(plain(completion.label))
    st.html(TOLD + draw_completion(completion))
