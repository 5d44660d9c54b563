import hashlib
from pathlib import Path

import pytest

from klaudit.drift.prompt_set import PromptSet, read_prompt_set
from klaudit.errors import InvalidConfig


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_jsonl_gives_its_prompts_in_order_with_spaces_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.jsonl", '{"prompt": "The film "}\n\n{"prompt": "Ein Buch,\\u2028das"}\r\n')
    assert read_prompt_set(path) == PromptSet(name="reviews", prompts=("The film ", "Ein Buch,\u2028das"))


def test_slices_and_weights_may_stand_at_some_prompts_only(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mixed.jsonl", '{"prompt": "a", "slice": "code", "weight": 2}\n{"prompt": "b", "slice": null}\n{"prompt": "a"}\n'
    )
    assert read_prompt_set(path) == PromptSet("mixed", ("a", "b", "a"), slices=("code", None, None), weights=(2.0, 1.0, 1.0))


def test_digest_holds_slices_and_weights_where_there_are_any() -> None:
    plain = PromptSet("one", ("a", "b"))
    assert PromptSet("one", ("a", "b"), slices=(None, None), weights=(1.0, 1)).digest == plain.digest
    others = {PromptSet("one", ("a", "b"), slices=("x", None)).digest, PromptSet("one", ("a", "b"), weights=(1.0, 2.0)).digest}
    assert len(others | {plain.digest}) == 3


def test_text_gives_one_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.txt", "\ufeffThe film\r\n\nThe book ")
    assert read_prompt_set(path).prompts == ("The film", "The book ")


def test_digest_is_sha256_of_the_prompts_as_canonical_json_whatever_the_name() -> None:
    expected = "sha256:" + hashlib.sha256('["The film","Ein süßes Buch"]'.encode()).hexdigest()
    assert PromptSet("one", ("The film", "Ein süßes Buch")).digest == expected
    assert PromptSet("two", ("The film", "Ein süßes Buch")).digest == expected
    assert PromptSet("one", ("Ein süßes Buch", "The film")).digest != expected


@pytest.mark.parametrize(
    ("line", "field", "remedy"),
    [
        ('{"prompt": "x", "slice": " "}', "field slice", "not blank"),
        ('{"prompt": "x", "slice": 3}', "field slice", "expected a text"),
        ('{"prompt": "x", "weight": 0}', "field weight", "positive finite number"),
        ('{"prompt": "x", "weight": true}', "field weight", "positive finite number"),
        ('{"prompt": "x", "weight": Infinity}', "field weight", "positive finite number"),
        ('{"prompt": "x", "weight": 1' + "0" * 400 + "}", "field weight", "positive finite number"),
        ('{"prompt": "x", "colour": "red"}', "field colour", "the fields are prompt, slice, weight"),
        ('{"prompt": " "}', "field prompt", "not blank"),
        ('{"prompt": 3}', "field prompt", "expected a text"),
        ('{"prompt": "\\ud800"}', "field prompt", "valid Unicode"),
        ('{"text": "x"}', "field prompt", "expected a JSON object"),
        ('["x"]', "field prompt", "expected a JSON object"),
        ("{prompt}", "JSON object", "Expecting"),
        (f'{{"prompt": "x", "weight": {"9" * 5000}}}', "JSON object", "Exceeds the limit"),
    ],
)
def test_bad_line_is_refused_with_file_line_and_field(tmp_path: Path, line: str, field: str, remedy: str) -> None:
    path = write(tmp_path / "reviews.jsonl", f'{{"prompt": "The film"}}\n\n{line}\n')
    with pytest.raises(InvalidConfig) as caught:
        read_prompt_set(path)
    for part in (str(path), "line 3", field, remedy):
        assert part in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("empty.jsonl", "\n \n"), ("empty.txt", "")])
def test_file_without_prompts_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InvalidConfig, match=f"{name} holds no prompts"):
        read_prompt_set(write(tmp_path / name, text))


def test_missing_file_other_ending_and_other_encoding_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"Expected prompts in a file .* a line\); there is no file .*none\.txt'\. Check the name"):
        read_prompt_set(tmp_path / "none.txt")
    with pytest.raises(InvalidConfig, match=r"\*\.jsonl .* got .*prompts\.csv"):
        read_prompt_set(write(tmp_path / "prompts.csv", "x"))
    (tmp_path / "latin.txt").write_bytes("süß".encode("latin-1"))
    with pytest.raises(InvalidConfig, match=r"as UTF-8 in .*latin\.txt'; byte 2 is none"):
        read_prompt_set(tmp_path / "latin.txt")


def test_prompt_set_without_name_or_prompts_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="at least one prompt"):
        PromptSet("empty", ())
    with pytest.raises(InvalidConfig, match="needs a name"):
        PromptSet(" ", ("x",))


def test_slices_and_weights_must_be_one_a_prompt_and_sound() -> None:
    with pytest.raises(InvalidConfig, match="one of slices a prompt; got 1 for 2 prompts"):
        PromptSet("x", ("a", "b"), slices=("s",))
    with pytest.raises(InvalidConfig, match="prompt 2, field weight: expected a positive finite number; got nan"):
        PromptSet("x", ("a", "b"), weights=(1.0, float("nan")))
