"""The report in short, for a pull request or a model card."""

import re
from collections.abc import Sequence

from klaudit.report.document import Report
from klaudit.report.verdict import name_rule
from klaudit.report.views import DriftPoint
from klaudit.report.views.drift_profile import CheckpointProfile, tell_interval

MAX_FINDINGS = 10
MAX_SLICES = 3

MARKUP = re.compile(r"([\\`*_{}\[\]<>()#|~!$&])")
CONTROL = re.compile("[\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]+")


def render_markdown(report: Report) -> str:
    """GitHub-flavoured Markdown; every text that came from a trainer is escaped or put in a code span."""
    version, moment = report.klaudit_version, report.generated_at.strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"## KL audit of {to_code(report.run.name)}",
        "",
        f"**{report.verdict.upper()}: {escape(report.headline)}**",
        "",
        escape(report.measured),
        "",
        *to_table(("", "value", ""), [(escape(one.label), escape(one.text), escape(one.note)) for one in report.view.headline]),
        *list_findings(report),
        *list_drift(report),
        "### Not measured",
        "",
        *(f"- {escape(line)}" for line in report.not_measured[:MAX_FINDINGS] or ("nothing was missed that klaudit knows of",)),
        *state_rest(len(report.not_measured)),
        "",
        "### What this does not show",
        "",
        *(f"- {escape(line)}" for line in report.limits),
        "",
        f"Reference {to_code(report.drift.reference)}, {to_code(report.drift.reference_digest or 'digest not computed')}. "
        f"klaudit {escape(version)}, {moment}.",
    ]
    return "\n".join(lines) + "\n"


def list_findings(report: Report) -> list[str]:
    """A table of the worst findings."""
    rows = [
        (one.severity.value, escape(name_rule(one)), f"{one.first_step} to {one.last_step}", escape(one.message), escape(one.remedy))
        for one in report.findings[:MAX_FINDINGS]
    ]
    if not rows:
        return ["### Findings", "", "None.", ""]
    table = to_table(("severity", "rule", "steps", "what", "what to do"), rows)
    return ["### Findings", "", *table, *state_rest(len(report.findings)), ""]


def list_drift(report: Report) -> list[str]:
    """A table of the checkpoints, all prompts, full KL where it was measured."""
    points = report.drift.select("full") or tuple(one for one in report.drift.points if (one.slice, one.direction) == (None, "reverse"))
    if not points:
        return ["### Drift of the checkpoints", "", "Not measured.", ""]
    table = to_table(("checkpoint at step", "measured, 95% interval", "logged one step later"), [to_drift_row(one) for one in points])
    head = ["### Drift of the checkpoints", "", escape(points[0].label) + " over a fixed set of prompts.", ""]
    return [*head, *table, *list_profiles(report)]


def list_profiles(report: Report) -> list[str]:
    """A table of what was measured beside the KL."""
    if not report.profiles:
        return []
    head = ("checkpoint at step", "ratio check (must be 1)", "perplexity", "slices, times the KL per token of the rest")
    return to_table(head, [to_profile_row(one) for one in report.profiles])


def to_profile_row(profile: CheckpointProfile) -> tuple[str, ...]:
    """One checkpoint."""
    kept, ratio = profile.retention, profile.ratio
    retention = "not measured" if kept is None else f"{tell_interval(kept.policy)}, reference {tell_interval(kept.reference)}"
    slices = [
        f"{one.slice} {tell_interval(one.ratio)}, {one.p_text}{', beyond noise' * one.is_told}" for one in profile.slices[:MAX_SLICES]
    ]
    return (
        "none" if profile.step is None else str(profile.step),
        escape(ratio.text if ratio.is_right else f"{ratio.text}, {ratio.word}"),
        escape(retention),
        escape("; ".join(slices) or "the prompts have none"),
    )


def to_drift_row(point: DriftPoint) -> tuple[str, str, str]:
    """One checkpoint."""
    logged = "not logged" if point.logged is None else f"{point.logged.text} ({point.logged.estimator}, step {point.logged.logged_step})"
    return ("none" if point.step is None else str(point.step), escape(point.text), escape(logged))


def to_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A table, and the empty line behind it; cells are escaped by the caller."""
    lines = [head, ("---",) * len(head), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def state_rest(n: int) -> list[str]:
    """Say how many lines were left out."""
    return [f"\n{n - MAX_FINDINGS:,} more in the full report."] if n > MAX_FINDINGS else []


def escape(text: str) -> str:
    """Plain text: no markup, no link, no mention, one line."""
    flat = CONTROL.sub(" ", text).replace("://", ":\u200b//").replace("@", "@\u200b").replace("www.", "www\u200b.")
    return MARKUP.sub(r"\\\1", make_encodable(flat))


def to_code(text: str) -> str:
    """A code span that its own text cannot end."""
    flat = make_encodable(CONTROL.sub(" ", text)).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    pad = " " if flat[:1] in "` " or flat[-1:] in "` " else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def make_encodable(text: str) -> str:
    """Replace lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
