import hashlib
from pathlib import Path

import pytest

from klaudit.digests import digest_weights
from klaudit.errors import ModelNotFound


def test_the_digest_is_sha256_over_name_length_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert digest_weights(tmp_path) == "sha256:" + hashlib.sha256(b"model.safetensors\x007\x00weights").hexdigest()


def test_one_changed_byte_changes_the_digest_and_other_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = digest_weights(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert digest_weights(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"weighty")
    assert digest_weights(tmp_path) != before


def test_moving_bytes_from_one_shard_to_the_next_changes_the_digest(tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first.write_bytes(b"ab")
    second.write_bytes(b"c")
    before = digest_weights(tmp_path)
    first.write_bytes(b"a")
    second.write_bytes(b"bc")
    assert digest_weights(tmp_path) != before


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"\*\.safetensors"):
        digest_weights(tmp_path)
