from pathlib import Path

import pytest

from klaudit.config import SETTINGS_FILE, Settings, read_settings, read_toml, require_known_keys
from klaudit.errors import InvalidConfig


def write_settings(directory: Path, content: str) -> None:
    (directory / SETTINGS_FILE).write_text(content, encoding="utf-8")


def test_without_file_and_environment_the_store_lies_in_the_working_directory(tmp_path: Path) -> None:
    assert read_settings(environment={}, directory=tmp_path) == Settings("sqlite:///klaudit.db", None)


def test_the_file_says_what_the_environment_does_not(tmp_path: Path) -> None:
    write_settings(tmp_path, 'store = "sqlite:///file.db"\nwebhook = "https://file.example/hook"\n')
    settings = read_settings(environment={"KLAUDIT_STORE": "sqlite:///environment.db"}, directory=tmp_path)
    assert settings == Settings("sqlite:///environment.db", "https://file.example/hook")


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    write_settings(tmp_path, 'store = "sqlite:///file.db"\n')
    assert read_settings(environment={"KLAUDIT_STORE": ""}, directory=tmp_path).store == "sqlite:///file.db"


def test_the_working_directory_and_the_environment_are_those_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_settings(tmp_path, 'webhook = "https://file.example/hook"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KLAUDIT_STORE", "sqlite:///environment.db")
    monkeypatch.delenv("KLAUDIT_WEBHOOK", raising=False)
    assert read_settings() == Settings("sqlite:///environment.db", "https://file.example/hook")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('stroe = "sqlite:///a.db"', "unknown key 'stroe'; known are store, webhook"),
        ("store = 5", "store must be a string; got 5"),
        ("store = ", "expected TOML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    write_settings(tmp_path, content)
    with pytest.raises(InvalidConfig, match=said) as caught:
        read_settings(environment={}, directory=tmp_path)
    assert str(tmp_path / SETTINGS_FILE) in str(caught.value)


def test_a_toml_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"expected a TOML file at .*nowhere\.toml; there is none"):
        read_toml(tmp_path / "nowhere.toml")


def test_a_toml_file_that_is_a_directory_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "binary.toml"):
        with pytest.raises(InvalidConfig, match="expected TOML"):
            read_toml(path)


def test_every_unknown_key_is_named() -> None:
    require_known_keys({"a": 1}, known=("a", "b"), where="here")
    with pytest.raises(InvalidConfig, match="here: unknown key 'c', 'd'; known are a, b"):
        require_known_keys({"d": 1, "a": 1, "c": 1}, known=("a", "b"), where="here")
