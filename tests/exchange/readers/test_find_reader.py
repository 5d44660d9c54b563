"""Which reader a file gets, by what is in it; and files that nobody should try to import."""

import errno
import gzip
import json
import os
import pickle
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaudit.errors import InvalidImportFile, KlauditError
from klaudit.exchange.lines import LONGEST_LINE, read_lines
from klaudit.exchange.reader import NO_OPTIONS, ReadOptions, name_run
from klaudit.exchange.readers import READERS, find_reader
from tests.exchange.readers.reading import read_one, read_runs, write

CONTENTS = {
    "steps-jsonl": '{"format": "klaudit-steps/1", "run": {"name": "a"}}\n{"step": 1, "kl": 0.1}\n',
    "trainer-state": '{"epoch": 1.0, "log_history": [{"step": 1, "loss": 0.1}]}',
    "verl-jsonl": '{"step":1,"data":{"actor/ppo_kl":0.1}}\n',
    "jsonl": '{"step": 1, "kl": 0.1}\n',
    "verl-console": "hello\n(TaskRunner pid=1) step:1 - actor/ppo_kl:0.1\n",
    "openrlhf-console": "hello\nINFO 11-22 10:00:00 ppo_trainer.py:551] Global step 1: {'kl': 0.1}\n",
    "trl-console": "hello\n{'loss': 0.1, 'kl': 0.1, 'epoch': 0.1}\n",
    "csv": "step,kl\n1,0.1\n",
}

DAMAGES = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"'",
    b",",
    b":",
    b"\n",
    b"\r",
    b"nan",
    b"null",
    b"-",
    b"1e999",
    b"9" * 400,
    b"\xff",
    b"\0",
    b"\\ud800",
    b"step",
]


@pytest.mark.parametrize("is_zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("format_name", CONTENTS)
def test_what_is_in_a_file_decides_and_not_its_name(tmp_path: Path, format_name: str, is_zipped: bool) -> None:
    content = CONTENTS[format_name].encode()
    path = write(tmp_path / "something", gzip.compress(content) if is_zipped else content)
    assert find_reader(path).name == format_name
    assert read_one(path).steps[0].step == 1


@pytest.mark.parametrize("format_name", CONTENTS)
def test_only_the_right_reader_takes_a_format_for_its_own(tmp_path: Path, format_name: str) -> None:
    path = write(tmp_path / "something", CONTENTS[format_name])
    names = [reader.name for reader in READERS]
    assert len(set(names)) == len(names)
    assert find_reader(path, format_name).name == format_name


def test_an_unknown_format_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidImportFile, match=r"expected a format of .*trainer-state.*; got 'xls'"):
        find_reader(write(tmp_path / "a", "x"), "xls")


STRANGERS = {
    "nothing": (b"", "this one is empty"),
    "blanks": (b" \n\n", "this one is empty"),
    "a pickle": (pickle.dumps({"step": 1, "kl": 0.1}), "pickles are never opened"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
    "a diary": (b"Dear diary, today the policy collapsed again.\n" * 50, "no line of this one is recognised"),
    "a list of numbers": (b"[1, 2, 3]", "no line of this one is recognised"),
    "brackets": (b"[" * 100_000, "no line of this one is recognised"),
    "braces": (b'{"a":' * 20_000, "expected one JSON object; maximum recursion depth exceeded"),
    "half a gzip file": (gzip.compress(b'{"step": 1}\n' * 50)[:20], "expected a file that can be read"),
    "what says that it is gzip": (b"\x1f\x8bnot at all", "expected a file that can be read"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_a_stranger_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    content, said = STRANGERS[what]
    path = write(tmp_path / "a.log", content)
    with pytest.raises(InvalidImportFile) as caught:
        read_one(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class _RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("pickled",))


@pytest.mark.parametrize("format_name", [reader.name for reader in READERS])
def test_whoever_is_told_to_read_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.pkl", pickle.dumps(_RunsCode()))
    with pytest.raises(InvalidImportFile):
        read_one(path, format_name)
    assert [one.name for one in tmp_path.iterdir()] == ["a.pkl"]


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(InvalidImportFile, match="nowhere: expected a file that can be read; no such file"):
        find_reader(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(InvalidImportFile, match="this is a pipe, a socket or a device"):
                find_reader(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidImportFile, match="nothing in this one is of a known format"):
        find_reader(tmp_path / "empty")


@pytest.mark.parametrize("format_name", [name for name in CONTENTS if name != "trainer-state"])
def test_a_directory_is_no_text_file(tmp_path: Path, format_name: str) -> None:
    with pytest.raises(InvalidImportFile, match="expected a file that can be read; is a directory"):
        read_one(tmp_path, format_name)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", CONTENTS["csv"])

    def refuse(*_: object) -> None:
        # root may read everything, so the file's mode would not do.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidImportFile, match="permission denied"):
        find_reader(path)


@pytest.mark.parametrize("format_name", CONTENTS)
def test_a_line_of_ten_megabytes_is_refused_and_not_held(tmp_path: Path, format_name: str) -> None:
    path = tmp_path / "a"
    with path.open("w") as file:
        file.write(CONTENTS[format_name].removesuffix("]}"))
        file.write(', {"step": 2, "loss": "' if format_name == "trainer-state" else '{"a": "')
        for _ in range(12):
            file.write("x" * (1 << 20))
    with pytest.raises(InvalidImportFile, match="of at most 10 MiB; this one is longer"):
        read_one(path)


def test_a_line_just_short_enough_is_read(tmp_path: Path) -> None:
    line = json.dumps({"step": 1, "kl": 0.5, "text": "x" * (LONGEST_LINE - 100)})
    assert read_one(write(tmp_path / "a.jsonl", line)).steps[0].kl.value == 0.5


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "\ufeffone\r\n\n  \nfour\rstill four\nfive")
    lines = [(line.number, line.text) for line in read_lines(path, on_progress=NO_OPTIONS.on_progress)]
    assert lines == [(1, "one"), (4, "four\rstill four"), (5, "five")]
    lines = [(line.number, line.text) for line in read_lines(path, on_progress=NO_OPTIONS.on_progress, is_console=True)]
    assert lines == [(1, "one"), (4, "four"), (4, "still four"), (5, "five")]


def test_lines_do_not_depend_on_where_a_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", "\ufeffeins\r\nzwei\rdrei\n\nfünf 🙂\r\n")
    expected = list(read_lines(path, on_progress=NO_OPTIONS.on_progress, is_console=True))
    for size in range(3, 12):
        monkeypatch.setattr("klaudit.exchange.lines.BLOCK_BYTES", size)
        assert list(read_lines(path, on_progress=NO_OPTIONS.on_progress, is_console=True)) == expected


def test_text_that_is_no_utf8_is_named_and_does_not_matter_on_a_console(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"step": 1, "kl": 0.1}\n{"step": 2, "kl\xff": 0.1}\n')
    with pytest.raises(InvalidImportFile, match="line 2: expected text in UTF-8"):
        read_one(path)
    path = write(tmp_path / "a.log", b"\xff\xfe noise\n{'loss': 0.1, 'kl': 0.1, 'epoch': 0.1}\n")
    assert len(read_one(path).steps) == 1


def test_a_gzip_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{step},{step * 7919 % 1013}\n" for step in range(20_000))
    path = write(tmp_path / "a.csv.gz", gzip.compress(f"step,kl\n{rows}".encode())[:-500])
    with pytest.raises(InvalidImportFile, match="expected a file that can be read"):
        read_one(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/a/checkpoint-2/trainer_state.json", "a"),
        ("runs/a.b.trainer_state.json", "a.b"),
        ("runs/grpo.csv.gz", "grpo"),
        ("runs/log", "log"),
        ("runs/.log", "runs"),
        ("runs/trainer_state.json", "runs"),
    ],
)
def test_a_run_is_called_as_its_file_or_its_directory_is(tmp_path: Path, path: str, name: str) -> None:
    assert name_run(tmp_path / path, NO_OPTIONS) == name
    assert name_run(tmp_path / path, ReadOptions(name="mine")) == "mine"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.sampled_from([one.encode() for one in CONTENTS.values()]), data=st.data())
def test_whatever_happened_to_a_file_it_is_read_or_refused_in_one_line(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        with_what = data.draw(st.sampled_from(DAMAGES) | st.binary(max_size=4))
        damaged[at : at + data.draw(st.integers(0, 6))] = with_what
    path = write(tmp_path / "a", bytes(damaged))
    refusal: KlauditError | None = None
    try:
        read_runs(path)
    except KlauditError as error:
        refusal = error
    if refusal is not None:
        assert (refusal.exit_code, "\n" in str(refusal)) == (2, False)
        assert len(str(refusal)) < 600
