from dataclasses import replace
from pathlib import Path

import pytest

from klaudit.errors import InvalidStepsFile, RunNotFound
from klaudit.exchange.recorded_run import read_recorded_run, write_recorded_run
from klaudit.records import KLBudget, TextSample
from klaudit.store import Store
from klaudit.workflows.recorded_runs import hide_folders, load_recorded_run, save_recorded_run
from tests.exchange.test_recorded_run import make_recorded_run
from tests.workflows.recordings import begin, make_step, record_all


def test_a_recorded_run_is_loaded_audited_and_complete(store: Store, tmp_path: Path) -> None:
    recorded = make_recorded_run()
    recorded = replace(recorded, budgets=(KLBudget(0.2, "nats_per_sequence", owner="me"),))
    write_recorded_run(tmp_path / "recorded", recorded)
    loaded = load_recorded_run(store, tmp_path / "recorded")
    run = store.runs.get("a run")
    assert (loaded.run.id, loaded.n_steps, loaded.n_findings, loaded.is_new) == (run.id, 2, 1, True)
    assert store.steps.list(run.id) == list(recorded.steps)
    assert store.samples.list(run.id) == list(recorded.samples)
    assert store.drift.list(run.id) == [replace(recorded.drift[0], run_id=run.id)]
    assert [(one.path, one.step) for one in store.checkpoints.list(run.id)] == [("checkpoint-2", 2)]
    assert [one.limit for one in store.budgets.for_run(run)] == [0.2]
    assert [finding.code for finding in store.findings.list(run.id)] == ["KLA101"]


def test_loading_a_recording_twice_changes_nothing(store: Store, tmp_path: Path) -> None:
    write_recorded_run(tmp_path / "recorded", make_recorded_run())
    first = load_recorded_run(store, tmp_path / "recorded")
    again = load_recorded_run(store, tmp_path / "recorded")
    assert (again.run.id, again.n_steps, again.is_new) == (first.run.id, 2, False)
    assert len(store.runs.list()) == 1


def test_another_run_of_the_same_name_is_loaded_beside_it(store: Store, tmp_path: Path) -> None:
    recorded = make_recorded_run()
    write_recorded_run(tmp_path / "one", recorded)
    write_recorded_run(tmp_path / "two", replace(recorded, run=replace(recorded.run, config={"seed": 2})))
    names = [load_recorded_run(store, tmp_path / name).run.name for name in ("one", "two")]
    assert names == ["a run", "a run-2"]


@pytest.mark.parametrize("name", ["steps.jsonl", "samples.json", "drift.json"])
def test_a_bad_file_loads_nothing(store: Store, tmp_path: Path, name: str) -> None:
    write_recorded_run(tmp_path / "recorded", make_recorded_run())
    with (tmp_path / "recorded" / name).open("a") as file:
        file.write("{\n")
    with pytest.raises(InvalidStepsFile, match=name):
        load_recorded_run(store, tmp_path / "recorded")
    assert store.runs.list() == []


def test_a_recording_that_the_store_refuses_half_way_leaves_nothing(store: Store, tmp_path: Path) -> None:
    recorded = make_recorded_run()
    twice = (TextSample(2, "p", "c", ()), TextSample(2, "p", "c", ()))
    write_recorded_run(tmp_path / "recorded", replace(recorded, samples=twice))
    with pytest.raises(ValueError, match="expected text samples with an index each"):
        load_recorded_run(store, tmp_path / "recorded")
    assert store.runs.list() == []


def test_a_run_of_the_store_is_saved_as_it_was_recorded(store_url: str, store: Store, tmp_path: Path) -> None:
    with begin(store_url, budgets=[KLBudget(1.0, "nats_per_sequence", owner="me")]) as recorder:
        record_all(recorder, [0.1, 0.2])
        recorder.log(make_step(3, 0.3), samples=[TextSample(3, "The film was", " good", ())])
    drift = replace(make_recorded_run().drift[0], run_id=recorder.run.id, checkpoint="/home/somebody/runs/checkpoint-2")
    store.drift.add_all([drift])
    save_recorded_run(store, "run", tmp_path / "saved", config={"seed": 7})
    saved = read_recorded_run(tmp_path / "saved")
    assert (saved.run.name, saved.run.status, saved.run.config) == ("run", "finished", {"seed": 7})
    assert [step.kl.value for step in saved.steps] == [0.1, 0.2, 0.3]
    assert [sample.completion for sample in saved.samples] == [" good"]
    assert [(one.checkpoint, one.run_id) for one in saved.drift] == [("checkpoint-2", None)]
    assert [(one.limit, one.run_id) for one in saved.budgets] == [(1.0, None)]
    assert "/home/somebody" not in "".join(path.read_text() for path in (tmp_path / "saved").iterdir())


def test_the_folders_that_models_lay_in_are_nobodys_business() -> None:
    identity = {"policy": {"name": "/home/somebody/models/small", "digest": "sha256:1"}, "reference": {"name": "org/small"}, "seed": 7}
    hidden = hide_folders(replace(make_recorded_run().run, identity=identity))
    assert hidden.identity == {"policy": {"name": "small", "digest": "sha256:1"}, "reference": {"name": "org/small"}, "seed": 7}


@pytest.mark.parametrize(
    ("remote", "hidden"),
    [("/srv/somebody/code", None), ("file:///srv/somebody/code", None), ("https://host/code.git", "https://host/code.git"), (None, None)],
)
def test_the_folder_that_the_code_was_cloned_from_is_nobodys_business(remote: str | None, hidden: str | None) -> None:
    run = hide_folders(replace(make_recorded_run().run, identity={"git": {"commit": "3350bdb", "remote": remote}}))
    assert run.identity == {"git": {"commit": "3350bdb", "remote": hidden}}


def test_a_run_that_is_not_there_is_not_saved(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound):
        save_recorded_run(store, "nobody", tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
