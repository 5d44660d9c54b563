"""The list of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType

from klaudit.records import UNIT_LABELS, KLBudget, RunSummary
from klaudit.report.views.budget import use_of_last_reading
from klaudit.report.views.capture import as_mapping, as_text, name_trainer
from klaudit.report.views.figure import format_count, format_reading


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run in the list."""

    id: str
    name: str
    status: str
    n_steps: int
    """Steps stored, superseded ones included."""
    planned_steps: int | None
    last_step: int | None
    last_kl: float | None
    """Governing KL of the last step, in `kl_unit`; None: not measured."""
    last_kl_se: float | None
    """Its standard error, in `kl_unit`."""
    kl_label: str
    """What that KL is, such as `KL to reference (full, nats/sequence)`."""
    kl_unit: str
    """For people."""
    kl_text: str
    """Value, standard error and unit, or why there is no value."""
    budget_used_percent: float | None
    """Of the per_step budget that the last reading uses most; None where there is no budget that it can be compared with."""
    budget_text: str
    """What was compared with what."""
    n_critical: int
    n_warning: int
    n_info: int
    last_beta: float | None
    """Reward per nat."""
    last_score: float | None
    updated_at: datetime | None
    """When the last step was logged."""
    trainer: str = ""
    """Algorithm and framework, such as `ppo by trl`."""
    n_lost: int = 0
    """Steps that were logged and could not be kept."""
    silence: str | None = None
    """`no sign of life since 14:03 UTC` where the run says that it is running and nobody writes it."""
    imported_from: str = ""
    """Format of the file that the run was imported from; empty for a recorded run."""


@dataclass(frozen=True, slots=True)
class RunsView:
    """What the page Runs shows."""

    rows: tuple[RunRow, ...]
    """In the order they came."""
    statement: str

    @property
    def n_running(self) -> int:
        """Runs that say that they are running, and that show signs of life."""
        return sum(one.status == "running" and one.silence is None for one in self.rows)


def view_runs(
    summaries: Sequence[RunSummary],
    *,
    budgets: Sequence[KLBudget] = (),
    silences: Mapping[str, str | None] = MappingProxyType({}),
) -> RunsView:
    """List runs with their last KL, budget use and findings.

    Args:
        summaries: one a run.
        budgets: those that do not cover a run are passed over.
        silences: by the id of a run that is running and that nobody writes, since when.
    """
    rows = tuple(to_row(one, budgets, silence=silences.get(one.run.id)) for one in summaries)
    critical = sum(row.n_critical > 0 for row in rows)
    view = RunsView(rows=rows, statement="")
    return replace(view, statement=f"{format_count(len(rows), 'run')}, {view.n_running} running, {critical} with critical findings")


def explain_no_use(budgets: Sequence[KLBudget]) -> str:
    """Why the last reading of a run is compared with none of its budgets."""
    if not budgets:
        return "no budget is set"
    if all(one.scope != "per_step" for one in budgets):
        return "no budget on a single step; the others are on the run's page"
    return "no budget that the last reading can be compared with"


def to_row(summary: RunSummary, budgets: Sequence[KLBudget], *, silence: str | None = None) -> RunRow:
    """One line of the list."""
    run, reading = summary.run, summary.last_kl
    covering = [one for one in budgets if one.covers(run.id, run.name)]
    use = use_of_last_reading(covering, reading)
    return RunRow(
        id=run.id,
        name=run.name,
        status=run.status,
        n_steps=summary.n_steps,
        planned_steps=run.planned_steps,
        last_step=summary.last_step,
        last_kl=None if reading is None else reading.value,
        last_kl_se=None if reading is None else reading.standard_error,
        kl_label="" if reading is None else reading.series.label,
        kl_unit="" if reading is None else UNIT_LABELS[reading.series.unit],
        kl_text=format_reading(reading),
        budget_used_percent=None if use is None else use.used_percent,
        budget_text=explain_no_use(covering) if use is None else use.statement,
        n_critical=summary.n_findings.get("critical", 0),
        n_warning=summary.n_findings.get("warning", 0),
        n_info=summary.n_findings.get("info", 0),
        last_beta=summary.last_beta,
        last_score=summary.last_score,
        updated_at=summary.last_logged_at,
        trainer=name_trainer(run),
        n_lost=summary.n_lost,
        silence=silence,
        imported_from=as_text(as_mapping(as_mapping(run.identity).get("imported")).get("format")),
    )
