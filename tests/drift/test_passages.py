from pathlib import Path

import pytest

from klaudit.drift.passages import OWN_TEXT, Passages, read_passages
from klaudit.errors import InvalidConfig


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_own_text_has_forty_different_passages_of_some_sentences() -> None:
    passages = read_passages()
    assert passages.name == OWN_TEXT
    assert len(set(passages.texts)) == len(passages.texts) == 40
    assert all(25 <= len(text.split()) <= 80 and text.endswith(".") and text.isascii() for text in passages.texts)


def test_text_is_cut_at_blank_lines_and_jsonl_at_lines(tmp_path: Path) -> None:
    assert read_passages(write(tmp_path / "own.txt", "one\ntwo\n\n \nthree\n")) == Passages("own", ("one\ntwo", "three"))
    assert read_passages(write(tmp_path / "own.jsonl", '{"text": "one\\n\\ntwo"}\n{"text": "three"}\n')).texts == ("one\n\ntwo", "three")


def test_digest_is_of_the_passages_and_not_of_their_name() -> None:
    assert Passages("a", ("x", "y")).digest == Passages("b", ("x", "y")).digest != Passages("a", ("y", "x")).digest


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "x", r"\*\.txt .* got .*a\.csv"),
        ("a.txt", "only one", "at least 2 passages"),
        ("a.txt", "\n\n", "holds no text"),
        ("a.jsonl", '{"text": "x"}\n{"prompt": "y"}', r"a\.jsonl, line 2: expected a JSON object with the field text"),
        ("a.jsonl", '{"text": "x"}\n{"text": 3}', r"a\.jsonl, line 2, field text: expected a text"),
        ("a.jsonl", '{"text": "x", "slice": "s"}', r"line 1, field slice: the only field is text"),
    ],
)
def test_bad_file_is_refused_with_file_line_and_field(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        read_passages(write(tmp_path / name, text))
