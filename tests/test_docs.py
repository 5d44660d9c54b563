"""What README and docs say is run, parsed, and compared with the code. Whether they are up to date is `python docs/build.py --check`."""

import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from docs.build import BLOCK, BLOCKS, ROOT, describe_recorded, draw_recorded, fill_blocks, find_broken_links, find_stale, list_pages
from klaudit.audit import read_policy
from klaudit.cli.main import app
from klaudit.demo.recipe import read_recipe
from klaudit.exchange.recorded_run import RecordedRun
from klaudit.ppo.config import PPOConfig
from klaudit.ppo.trainer import PPOTrainer
from tests.models.tiny import make_tiny_model
from tests.report.invented import invent_run

FENCED = re.compile(r"^```(\w+)( no-run)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MENTION = re.compile(r"`(klaudit [^`]+)`")


def list_blocks(language: str) -> Iterator[tuple[str, str]]:
    """Page and text of every fenced block of a language that is to be run."""
    for page in list_pages():
        for found, no_run, text in FENCED.findall(page.read_text(encoding="utf-8")):
            if found == language and not no_run:
                yield str(page.relative_to(ROOT)), text


def list_command_lines() -> list[tuple[str, str]]:
    lines = ((page, line) for page, text in list_blocks("sh") for line in text.splitlines() if line.startswith("klaudit "))
    # Where the output goes is for the shell to know.
    return [(page, re.split(r" [>|] ", line)[0]) for page, line in lines]


def list_mentions() -> list[tuple[str, str]]:
    found = ((page, MENTION.findall(page.read_text(encoding="utf-8"))) for page in list_pages())
    return sorted({(str(page.relative_to(ROOT)), line) for page, lines in found for line in lines})


def parse(line: str, *, is_whole: bool) -> None:
    """Walk the command tree along a line; a whole line must parse, of a mention the command and its options must exist."""
    command, words = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    if is_whole:
        command.make_context(line, words)
        return
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert [word for word in words if word.startswith("--") and word not in known] == []


@pytest.mark.parametrize(("page", "line"), list_command_lines())
def test_a_command_line_in_the_docs_parses(page: str, line: str) -> None:
    parse(line, is_whole=True)


@pytest.mark.parametrize(("page", "line"), list_mentions())
def test_a_command_that_is_mentioned_exists_with_its_options(page: str, line: str) -> None:
    parse(line, is_whole=False)


def test_a_command_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(KeyError):
        parse("klaudit polish RUN", is_whole=True)
    with pytest.raises(typer.TyperException):
        parse("klaudit report RUN --colour", is_whole=True)


@pytest.mark.parametrize(("page", "text"), list(list_blocks("python")))
def test_a_python_example_runs(page: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("KLAUDIT_STORE", "KLAUDIT_WEBHOOK"):
        monkeypatch.delenv(name, raising=False)
    names: dict[str, object] = {}
    exec(compile(text, page, "exec"), names)
    assert getattr(names.get("run"), "failures", 0) == 0


@pytest.mark.parametrize(("page", "text"), list(list_blocks("toml")))
def test_a_toml_example_is_read(page: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(text, encoding="utf-8")
    if "[ppo]" in text:
        assert read_recipe(path).budgets
    elif "[rules." in text:
        assert read_policy(path).name == "lab"
    else:
        assert text.startswith("# klaudit.toml")


def test_the_page_of_the_ppo_trainer_names_what_a_step_logs_and_nothing_else(tmp_path: Path) -> None:
    def count(_prompts: list[str], completions: list[str]) -> list[float]:
        return [float(len(text)) for text in completions]

    config = PPOConfig(max_steps=1, batch_size=2, response_length=3, save_steps=0, save_optimizer=False)
    trainer = PPOTrainer(make_tiny_model(), score=count, heldout_score=count, prompts=["w1"], config=config, output_dir=tmp_path)
    logged = trainer.train().log_history[0].keys() - {"step"}
    section = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8").split("## What a step logs")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == logged


def test_every_page_is_named_on_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index and page.name != "index.md"] == []


def test_every_generated_block_has_its_place() -> None:
    used = [name for page in list_pages() for _, name, _ in BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert sorted(used) == sorted(BLOCKS)


def test_a_block_is_filled_and_what_stands_around_it_is_left_alone() -> None:
    text = "before\n<!-- generated: metrics -->\nold\n<!-- end -->\nafter\n"
    filled = fill_blocks(text)
    assert filled.startswith("before\n<!-- generated: metrics -->\n\n| name |")
    assert filled.endswith("|\n\n<!-- end -->\nafter\n")
    assert fill_blocks(filled) == filled


def test_a_stale_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("new", encoding="utf-8")
    assert list(find_stale({path: "new"})) == []
    assert [line.split(" is not")[0] for line in find_stale({path: "newer", tmp_path / "other.md": ""})] == [
        str(path),
        str(tmp_path / "other.md"),
    ]


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# A `code` heading, and more\n```\n# no heading\n```\n", encoding="utf-8")
    page.write_text(
        "[a](other.md) [b](other.md#a-code-heading-and-more) [c](https://example.com/x) [d](#here)\n# Here\n"
        '[e](gone.md) [f](other.md#no-heading) <img src="gone.png">\n```\n[g](also-gone.md)\n```\n',
        encoding="utf-8",
    )
    assert [line.split(": ")[1].split(" ")[0] for line in find_broken_links([page])] == ["gone.md", "other.md#no-heading", "gone.png"]


def test_a_recorded_run_gives_a_picture_that_stands_alone_and_its_figures(tmp_path: Path) -> None:
    invented = invent_run()
    recorded = RecordedRun(invented.run, invented.steps, budgets=invented.budgets)
    picture = ET.fromstring(draw_recorded(recorded))
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert picture.find("{http://www.w3.org/2000/svg}style") is not None
    name, n_steps, *_, verdict = describe_recorded(tmp_path / "some-run", recorded)
    assert (name, n_steps) == ("`some-run`", str(len(invented.steps)))
    assert verdict.startswith(("pass", "warn", "fail"))
