"""Try a policy on the runs of a store; nothing is written."""

from collections.abc import Callable, Iterator, Sequence

from klaudit.audit import Policy
from klaudit.audit.backtest import WITHIN_STEPS, Backtest, RunBacktest, backtest_run
from klaudit.records import RunSummary, Severity, StepRecord, list_limit_changes
from klaudit.store import Store

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""

STEPS_A_REPORT = 1_000


def backtest_runs(
    store: Store,
    names: Sequence[str] = (),
    *,
    policy: Policy,
    against: Policy,
    at_least: Severity = Severity.WARNING,
    within_steps: int = WITHIN_STEPS,
    on_progress: Progress | None = None,
) -> Backtest:
    """What two policies would have said of past runs.

    Args:
        store: that holds the runs.
        names: ids or names of runs, each once; none: every run of the store, the oldest first.
        policy: that is tried.
        against: that it is compared with.
        at_least: findings below it tell nobody.
        within_steps: alarms of the two policies so near to each other are about the same thing.
        on_progress: told how far it is.

    Raises:
        RunNotFound: no run has one of the names.
    """
    summaries = [store.runs.summarize(run_id) for run_id in dict.fromkeys(store.runs.get(name).id for name in names)]
    summaries = summaries if names else store.runs.list()[::-1]
    n_all, n_done = sum(one.n_steps for one in summaries), 0
    runs = []
    for summary in summaries:
        steps = _report_steps(store.steps.iterate(summary.run.id), on_progress, n_before=n_done, n_all=n_all)
        runs.append(_backtest(store, summary, steps, policy=policy, against=against, at_least=at_least, within_steps=within_steps))
        n_done += summary.n_steps
    return Backtest(policy, against, tuple(runs), at_least=at_least, within_steps=within_steps)


def _backtest(
    store: Store,
    summary: RunSummary,
    steps: Iterator[StepRecord],
    *,
    policy: Policy,
    against: Policy,
    at_least: Severity,
    within_steps: int,
) -> RunBacktest:
    run = summary.run
    return backtest_run(
        run,
        steps,
        policy=policy,
        against=against,
        budgets=store.budgets.for_run(run),
        segments=store.runs.segments(run.id),
        drift_measurements=store.drift.list(run.id),
        limit_changes=list_limit_changes(store.budgets.history(run)),
        at_least=at_least,
        within_steps=within_steps,
    )


def _report_steps(steps: Iterator[StepRecord], on_progress: Progress | None, *, n_before: int, n_all: int) -> Iterator[StepRecord]:
    for number, record in enumerate(steps, start=n_before):
        if on_progress is not None and number % STEPS_A_REPORT == 0:
            on_progress(number, n_all)
        yield record
