import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from klaudit.errors import RunNotFound, StoreError
from klaudit.exchange.writers import WRITERS
from klaudit.records import KLReading, KLSeries, StepRecord
from klaudit.store import Store
from klaudit.workflows import exports
from klaudit.workflows.exports import export_run, save_export
from klaudit.workflows.imports import import_file
from tests.workflows.recordings import begin, make_step, record_all

LATER = KLSeries("reference", "k3", "nats_per_sequence", temperature=0.7, source_key="objective/kl")


def log_run(store_url: str) -> None:
    """Two segments, numbers that are none, and a series that the run had not declared."""
    with begin(store_url, "a run") as recorder:
        record_all(recorder, [0.0, math.nan, math.inf, -0.5])
    with begin(store_url, "a run", resumed_from_step=2) as recorder:
        record_all(recorder, [0.25], first_step=3)
        late = replace(make_step(4, 0.5, segment=recorder.segment), readings={"kl_k3": KLReading(LATER, 0.125, 0.01, 3, 17.5)})
        recorder.log(replace(late, metrics={"=1+1": -0.0}))
        absent = KLReading.absent(late.kl.series, "the trainer did not log it")
        recorder.log(replace(make_step(5, 0.0, segment=recorder.segment), kl=absent))
        assert recorder.flush()


def list_steps(store: Store, name: str) -> list[StepRecord]:
    return store.steps.list(store.runs.get(name).id)


@pytest.mark.parametrize("format_name", WRITERS)
def test_what_is_exported_and_imported_again_is_the_same_run(store_url: str, store: Store, tmp_path: Path, format_name: str) -> None:
    log_run(store_url)
    path = tmp_path / "deep" / "exported"
    assert save_export(store, "a run", path, format_name=format_name) == 7
    (imported,) = import_file(store, path)
    first, again = store.runs.get("a run"), imported.loaded.run
    assert again.name == "a run-2"
    assert repr(list_steps(store, again.id)) == repr(list_steps(store, "a run"))
    assert replace(again, id=first.id, name=first.name, identity=first.identity) == first
    assert first.series["kl_k3"] == LATER


@pytest.mark.parametrize("format_name", WRITERS)
def test_pages_make_no_difference(store_url: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str) -> None:
    log_run(store_url)
    whole, paged = io.BytesIO(), io.BytesIO()
    export_run(store, "a run", whole, format_name=format_name)
    monkeypatch.setattr(exports, "STEPS_A_PAGE", 2)
    calls: list[tuple[int, int]] = []
    export_run(store, "a run", paged, format_name=format_name, on_progress=lambda done, total: calls.append((done, total)))
    assert paged.getvalue() == whole.getvalue()
    n_in_all = 7 * WRITERS[format_name].n_passes
    assert calls[-1] == (n_in_all, n_in_all)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_a_step_that_comes_while_the_run_is_exported_is_not_in_the_file(
    store_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin(store_url, "live") as recorder:
        record_all(recorder, [0.0, 0.1, 0.2])
        monkeypatch.setattr(exports, "STEPS_A_PAGE", 2)

        def log_more(done: int, total: int) -> None:
            late = replace(make_step(10 + done, 0.5), metrics={"new": 1.0})
            recorder.log(late)
            assert recorder.flush()

        file = io.BytesIO()
        assert export_run(store, "live", file, format_name="csv", on_progress=log_more) == 3
    rows = file.getvalue().decode().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ['"step"', "1", "2", "3"]


@pytest.mark.parametrize("format_name", WRITERS)
def test_a_run_without_steps_can_be_exported(store_url: str, store: Store, format_name: str, tmp_path: Path) -> None:
    begin(store_url, "empty").close()
    assert save_export(store, "empty", tmp_path / "empty", format_name=format_name) == 0
    (imported,) = import_file(store, tmp_path / "empty")
    assert (imported.loaded.run.name, imported.loaded.n_steps) == ("empty-2", 0)


def test_an_export_that_fails_leaves_the_file_that_was_there(store_url: str, store: Store, tmp_path: Path) -> None:
    log_run(store_url)
    path = tmp_path / "run.csv"
    path.write_text("what was there")

    def fail(done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot write .*run\.csv: No space left on device"):
        save_export(store, "a run", path, format_name="csv", on_progress=fail)
    with pytest.raises(RunNotFound):
        save_export(store, "nobody", path, format_name="csv")
    assert path.read_text() == "what was there"
    assert [one.name for one in tmp_path.iterdir() if one.suffix == ".part"] == []


def test_a_missing_pyarrow_is_named_with_what_to_install(store_url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    log_run(store_url)
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        ImportError, match=r'Parquet needs an optional part of klaudit. Install it with: pip install "klaudit\[dashboard\]"'
    ):
        export_run(store, "a run", io.BytesIO(), format_name="parquet")
