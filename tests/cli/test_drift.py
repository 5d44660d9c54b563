"""`klaudit drift measure`, `show` and `matrix` on models of one small layer."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from klaudit.cli.drift import find_given_checkpoints
from klaudit.models.language_model import LanguageModel
from klaudit.models.sampling import sample_completions
from klaudit.records import Checkpoint
from klaudit.store import open_store
from tests.cli.conftest import Command
from tests.cli.outcome import look_at
from tests.drift.tiny_models import WORDS, add_weight_noise, build_model
from tests.store.examples import make_measurement

PROMPTS = [("a", "x"), ("b c", "x"), ("d e f", "y"), ("g", "y"), ("a a b", "x"), ("c g", "y")]


def save_model(language_model: LanguageModel, path: Path) -> Path:
    language_model.model.save_pretrained(path)
    language_model.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, and in `run` two checkpoints that left it."""
    directory, base = tmp_path_factory.mktemp("models"), build_model()
    save_model(base, directory / "base")
    save_model(add_weight_noise(base, relative=0.1), directory / "run" / "checkpoint-2")
    save_model(add_weight_noise(base, relative=0.3), directory / "run" / "checkpoint-10")
    return directory


@pytest.fixture
def asked(models: Path) -> tuple[object, ...]:
    """A measurement of both checkpoints."""
    lines = (json.dumps({"prompt": prompt, "slice": part}) for prompt, part in PROMPTS)
    Path("prompts.jsonl").write_text("\n".join(lines))
    Path("text.txt").write_text("a b c\n\nd e f g\n\nb d\n")
    settings = ("--prompts", "prompts.jsonl", "--max-new-tokens", 3, "--samples", 2, "--retention", "text.txt")
    return ("drift", "measure", "--reference", models / "base", "--checkpoints", models / "run", *settings)


def test_what_was_measured_is_one_object_and_stays_measured(klaudit: Command, asked: tuple[object, ...]) -> None:
    first = klaudit(*asked, "--matrix", "--json").json
    assert {(one["series"]["estimator"], one["series"]["direction"], one["slice"]) for one in first["measurements"]} == {
        (estimator, "reverse", part) for estimator in ("full", "k1", "k3") for part in (None, "x", "y")
    }
    assert {one["series"]["direction"] for one in first["forward"]} == {"forward"}
    assert len(first["forward"]) == len(first["measurements"]) == 18
    assert [one["slice"] for one in first["measurements"][:9]] == [None] * 3 + ["x"] * 3 + ["y"] * 3
    early, late = first["profiles"]
    assert (early["step"], late["step"], early["already_measured"]) == (2, 10, False)
    assert early["ratio"]["low"] <= early["ratio"]["value"] <= early["ratio"]["high"]
    rise, after, before = (late["retention"][f"{name}_nats_per_token"]["value"] for name in ("rise", "policy", "reference"))
    assert rise == pytest.approx(after - before)
    assert [one["layer"] for one in late["layers"]] == ["embedding", "layer 0", "final norm", "head"]
    assert {one["slice"]: one["n_prompts"] for one in late["slices"]} == {"x": 3, "y": 3}
    assert len({(one["checkpoint"], one["reference"]) for one in first["distances"]}) == 2

    again = klaudit(*asked, "--matrix", "--json")
    assert "already measured, and not measured again: 2 checkpoints of 2" in again.err
    assert [one["already_measured"] for one in again.json["profiles"]] == [True, True]
    assert again.json["measurements"] == first["measurements"]
    assert again.json["distances"] == first["distances"]


def test_without_the_forward_direction_and_a_text_there_is_neither(klaudit: Command, asked: tuple[object, ...]) -> None:
    measured = klaudit(*asked[:-1], "none", "--no-forward", "--json").json
    assert measured["forward"] == []
    assert [one["retention"] for one in measured["profiles"]] == [None, None]


def test_tables_fit_into_eighty_columns_and_name_their_units(
    klaudit: Command, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klaudit.cli.output.console.width", 80)
    shown = klaudit(*asked, "--matrix").out
    assert max(map(len, shown.splitlines())) <= 80
    # A row is one line: nothing was folded.
    assert sum(line.startswith("checkpoint-10 ") for line in shown.splitlines()) == 3 + 3 + 1 + 1 + 1
    for heading in (
        "KL(policy ‖ reference), nats/sequence; reference: base",
        "KL(reference ‖ policy), nats/sequence; reference: base",
        "perplexity of text, 3 passages,",
        "percent of the reference's (relative L2)",
        "Slices of checkpoint-10 against all other prompts, KL in nats/token",
        "KL(row ‖ column), nats/sequence",
    ):
        assert heading in shown


def test_weights_of_another_type_stand_in_a_table_of_their_own(klaudit: Command, asked: tuple[object, ...]) -> None:
    shown = klaudit(*asked, "--no-forward", "--dtype", "bfloat16").out
    assert "KL(policy ‖ reference), nats/sequence; reference: base; weights in bfloat16\n" in shown
    assert "dtype must be one of float32, bfloat16, float16; got 'int8'" in refuse(klaudit, *asked, "--dtype", "int8")


def test_a_run_shows_where_its_checkpoints_drifted(klaudit: Command, asked: tuple[object, ...], models: Path, store_file: Path) -> None:
    with open_store(f"sqlite:///{store_file}") as store:
        run = store.runs.get("quiet")
        for step in (2, 10):
            store.checkpoints.add(Checkpoint(run.id, step, str(models / "run" / f"checkpoint-{step}"), run.started_at))
    of_run = ("drift", "measure", "--reference", models / "base", "--run", "quiet", *asked[6:])
    assert klaudit(*of_run, "--matrix").code == 0
    shown = klaudit("drift", "show", "quiet", "--json").json
    assert len(shown["measurements"]) == len(shown["forward"]) == 18
    assert [(one["step"], one["sampler"]) for one in shown["completions"]] == [
        (step, sampler) for step in (2, 10) for sampler in ("policy", "reference")
    ]
    late = shown["completions"][2]
    assert late["n_sequences"] == 12
    assert sorted((one["prompt"], one["slice"]) for one in late["by_prompt"]) == sorted(PROMPTS)
    total = sum(one["nats_per_sequence"] * one["n_sequences"] for one in late["by_prompt"])
    assert total == pytest.approx(late["nats_per_token"] * late["n_tokens"])
    assert sum(one["nats"] for one in late["most_drifted_tokens"]) == pytest.approx(total)
    assert {one["token"] for one in late["most_drifted_tokens"]} <= set(WORDS)
    assert [one["position"] for one in late["by_position"]] == [1, 2, 3]
    assert sum(one["nats_per_token"] * one["n_sequences"] for one in late["by_position"]) == pytest.approx(total)
    reverse = next(one for one in shown["measurements"] if (one["step"], one["slice"], one["series"]["estimator"]) == (10, None, "full"))
    assert reverse["value"] == pytest.approx(total / 12)
    text = klaudit("drift", "show", "quiet").out
    assert "checkpoint-10" in text
    distances = klaudit("drift", "matrix", "quiet", "--json").json["distances"]
    assert {(one["step"], one["series"]["estimator"]) for one in distances} == {(s, e) for s in (2, 10) for e in ("full", "k1", "k3")}
    assert "KL(row ‖ column), nats/sequence" in klaudit("drift", "matrix", "quiet").out
    assert "not compared with each other" in klaudit("drift", "matrix", "loud").err
    assert klaudit("audit", "quiet", "--json").code == 0


def test_without_a_run_those_with_measured_drift_are_listed(klaudit: Command, store_file: Path) -> None:
    for command in ("show", "matrix"):
        outcome = klaudit("drift", command)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == (
            "klaudit: expected the id or name of a run; got none. No run has measured drift yet: klaudit drift measure --reference REF --run RUN\n"
        )
    with open_store(f"sqlite:///{store_file}") as store:
        run_id = store.runs.get("quiet").id
        store.drift.add_all([replace(make_measurement(run_id), checkpoint=f"checkpoint-{step}") for step in (2, 10)])
    assert klaudit("drift", "show").err == (
        "klaudit: expected the id or name of a run; got none. Runs with measured drift: quiet (2 checkpoints)\n"
    )


def test_a_spoiled_shard_ends_with_its_name(klaudit: Command, asked: tuple[object, ...]) -> None:
    klaudit(*asked)
    with closing(sqlite3.connect("klaudit.db", isolation_level=None)) as connection:
        connection.execute("UPDATE drift_shards SET content = x'00'")
        connection.execute("DELETE FROM drift_profiles")
    outcome = klaudit(*asked)
    assert outcome.code == 3
    assert "of drift_shards; it cannot be read" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_checkpoint_may_be_named_itself_and_more_than_one(klaudit: Command, asked: tuple[object, ...], models: Path) -> None:
    both = [("--checkpoints", models / "run" / f"checkpoint-{step}") for step in (10, 2)]
    measured = klaudit(*asked[:4], *both[0], *both[1], *asked[6:], "--json").json
    assert [(one["step"], Path(one["checkpoint"]).name) for one in measured["profiles"]] == [
        (None, "checkpoint-10"),
        (None, "checkpoint-2"),
    ]


def refuse(klaudit: Command, *arguments: object) -> str:
    """The last line of a command that is refused before anything is stored."""
    before = look_at(Path.cwd())
    outcome = klaudit(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert look_at(Path.cwd()) == before
    return outcome.err.splitlines()[-1]


def test_what_cannot_be_measured_is_refused_and_nothing_is_written(klaudit: Command, asked: tuple[object, ...], models: Path) -> None:
    head, tail = asked[:4], asked[6:]
    assert "there is none at './nowhere'" in refuse(klaudit, *head, "--checkpoints", "./nowhere", *tail)
    Path("empty").mkdir()
    assert "No directory checkpoint-N" in refuse(klaudit, *head, "--checkpoints", "empty", *tail)
    pickled = Path("checkpoint-7")
    pickled.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (pickled / name).write_bytes((models / "base" / name).read_bytes())
    torch.save(build_model().model.state_dict(), pickled / "pytorch_model.bin")
    assert "--allow-pickle" in refuse(klaudit, *head, "--checkpoints", pickled, *tail)
    Path("none.jsonl").write_text("\n")
    assert "holds no prompts" in refuse(klaudit, *asked, "--prompts", "none.jsonl")
    Path("blank.jsonl").write_text('{"prompt": " "}\n')
    assert "blank.jsonl, line 1, field prompt" in refuse(klaudit, *asked, "--prompts", "blank.jsonl")
    assert "there is no file 'gone.txt'. Check the name, or write it" in refuse(klaudit, *asked[:-1], "gone.txt")
    assert "half-width" in refuse(klaudit, *asked, "--ci", "0")
    assert "either --run RUN or --checkpoints DIR; got both" in refuse(klaudit, *asked, "--run", "x")


def test_pickles_are_loaded_where_they_are_allowed(klaudit: Command, asked: tuple[object, ...], models: Path) -> None:
    pickled = Path("checkpoint-7")
    pickled.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (pickled / name).write_bytes((models / "base" / name).read_bytes())
    torch.save(build_model().model.state_dict(), pickled / "pytorch_model.bin")
    (measured, *_) = klaudit(*asked[:4], "--checkpoints", pickled, *asked[6:], "--allow-pickle", "--json").json["measurements"]
    assert measured["value"] == pytest.approx(0, abs=1e-6)


def test_models_that_cannot_be_compared_and_prompts_that_do_not_fit_are_refused_before_anything_is_measured(
    klaudit: Command, asked: tuple[object, ...], tmp_path: Path
) -> None:
    head, tail = asked[:4], asked[6:]
    larger = save_model(build_model(words=(*WORDS, "h")), tmp_path / "larger")
    other = save_model(build_model(words=(*WORDS[:-1], "z")), tmp_path / "other")
    Path("long.txt").write_text(f"a\n{'b ' * 100}\n")
    Path("short.txt").write_text("a\n\nb\n")
    Path("folder.txt").mkdir()
    assert "must share a vocabulary" in refuse(klaudit, *head, "--checkpoints", larger, *tail)
    assert "must share a tokenizer" in refuse(klaudit, *head, "--checkpoints", other, *tail)
    assert "does not fit into the context" in refuse(klaudit, *asked, "--prompts", "long.txt")
    assert "needs at least 2 passages of 2 tokens or more; it has 0" in refuse(klaudit, *asked, "--retention", "short.txt")
    assert "'folder.txt' cannot be read: Is a directory" in refuse(klaudit, *asked, "--prompts", "folder.txt")


def test_a_checkpoint_that_is_neither_here_nor_on_the_hub_is_looked_for_nearby(klaudit: Command, asked: tuple[object, ...]) -> None:
    Path("trained/checkpoint-7").mkdir(parents=True)
    said = refuse(klaudit, *asked[:4], "--checkpoints", "checkpoint-7", *asked[6:])
    assert "No model 'checkpoint-7': it is neither a folder here nor a hub id that can be reached" in said
    assert "Did you mean ./trained/checkpoint-7?" in said
    assert "Did you mean" not in refuse(klaudit, *asked[:4], "--checkpoints", "checkpoint-8", *asked[6:])


def test_where_memory_runs_out_the_batch_is_halved_and_the_numbers_stay(
    klaudit: Command, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*asked[:-1], "none", "--no-forward", "--json")
    whole = klaudit(*asked).json["measurements"]
    Path("klaudit.db").unlink()
    refused: list[object] = []

    def run_out(*arguments: object, **options: object) -> object:
        if len(options["prompts"]) > 3:  # type: ignore[arg-type]
            refused.append(options["prompts"])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample_completions(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("klaudit.drift.shard.sample_completions", run_out)
    halved = klaudit(*asked).json["measurements"]
    assert refused
    assert [one["value"] for one in halved] == pytest.approx([one["value"] for one in whole], rel=1e-5, abs=1e-6)


def test_ray_that_is_not_installed_is_said_with_the_line_that_installs_it(
    klaudit: Command, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "ray" else find_spec(name, *rest))
    outcome = klaudit(*asked, "--ray", "local")
    assert outcome.code == 2
    assert 'pip install "klaudit[ray]"' in outcome.err.splitlines()[-1]


def test_a_checkpoint_that_is_named_twice_is_measured_once(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    name = str(tmp_path / "checkpoint")
    assert [one.path for one in find_given_checkpoints([name, name])] == [Path(name)]
