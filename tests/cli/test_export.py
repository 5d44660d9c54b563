import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from klaudit.cli.export import Format
from klaudit.exchange.writers import WRITERS
from tests.cli.conftest import Command


def test_every_format_can_be_asked_for() -> None:
    assert [one.value for one in Format] == list(WRITERS)


@pytest.mark.parametrize("format_name", WRITERS)
def test_a_run_is_written_to_a_file_and_imported_again(klaudit: Command, store_url: str, format_name: str) -> None:
    outcome = klaudit("export", "loud", "--format", format_name, "--out", "deep/run.out")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("wrote deep/run.out (4 steps, ")
    assert klaudit("import", "deep/run.out").code == 0
    one, again = (klaudit("runs", "show", name, "--json").json["run"] for name in ("loud", "loud-2"))
    for name in ("steps", "last_step", "last_kl", "series", "started_at", "batch_size"):
        assert one[name] == again[name]


def test_without_a_file_the_lines_go_to_standard_output(klaudit: Command, store_url: str) -> None:
    outcome = klaudit("export", "loud")
    assert (outcome.code, outcome.err) == (0, "")
    header, *steps = map(json.loads, outcome.out.splitlines())
    assert header["run"]["name"] == "loud"
    assert [one["kl"] for one in steps] == [0.0, 0.1, 2.0, "NaN"]


def test_a_terminal_is_not_filled_with_parquet(klaudit: Command, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    outcome = klaudit("export", "loud", "--format", "parquet")
    assert outcome.code == 2
    assert "a terminal cannot show parquet: say --out PATH" in outcome.line


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("export", "nobody"), 2, "expected the id or name of a run; got 'nobody'"),
        (("export", "loud", "--format", "xlsx"), 2, "'xlsx' is not one of 'steps-jsonl', 'csv', 'parquet'"),
        (("export", "loud", "--out", "."), 3, "cannot write ."),
        (("export", "loud", "--out", "/proc/nowhere/run.csv"), 3, "cannot write /proc/nowhere/run.csv"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_said_in_one_line(
    klaudit: Command, store_url: str, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    outcome = klaudit(*arguments)
    assert outcome.code == code
    assert expected in outcome.line


@pytest.mark.parametrize("arguments", [("export", "loud"), ("export", "loud", "--format", "parquet"), ("runs", "list")], ids=" ".join)
def test_a_reader_that_goes_away_ends_the_command_quietly(store_file: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from klaudit.cli import main; main()", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
