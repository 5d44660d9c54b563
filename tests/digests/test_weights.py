import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.digests import digest_weights, find_weights, weights
from klaudit.digests.file import read_blocks
from klaudit.errors import IncompleteWeights, ModelNotFound


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def index(*shards: str) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {f"layer.{n}": shard for n, shard in enumerate(shards)}}).encode()


def test_the_digest_is_sha256_over_name_length_and_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"model.safetensors": b"weights"})
    assert digest_weights(tmp_path) == "sha256:" + hashlib.sha256(b"model.safetensors\x007\x00weights").hexdigest()


def test_one_changed_byte_changes_the_digest_and_other_files_do_not(tmp_path: Path) -> None:
    write(tmp_path, {"model.safetensors": b"weights"})
    before = digest_weights(tmp_path)
    write(tmp_path, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    assert digest_weights(tmp_path) == before
    write(tmp_path, {"model.safetensors": b"weighty"})
    assert digest_weights(tmp_path) != before


@given(first=st.binary(max_size=40), second=st.binary(max_size=40), cut=st.integers(0, 80))
def test_moving_bytes_from_one_shard_to_the_next_changes_the_digest(
    tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes, cut: int
) -> None:
    together = first + second
    one = write(tmp_path_factory.mktemp("one"), {"a.safetensors": first, "b.safetensors": second})
    other = write(tmp_path_factory.mktemp("other"), {"a.safetensors": together[:cut], "b.safetensors": together[cut:]})
    assert (digest_weights(one) == digest_weights(other)) == (first == together[:cut])


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"\*\.safetensors"):
        digest_weights(tmp_path)


def test_a_model_in_shards_is_the_shards_that_its_index_names(tmp_path: Path) -> None:
    shards = {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    alone = write(tmp_path / "alone", {**shards, "model.safetensors.index.json": index(*shards)})
    beside = write(tmp_path / "beside", {**shards, "model.safetensors.index.json": index(*shards), "consolidated.safetensors": b"again"})
    assert digest_weights(beside) == digest_weights(alone)
    assert [file.name for file in find_weights(beside).unused] == ["consolidated.safetensors"]
    assert find_weights(beside).n_bytes == 6


def test_a_missing_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path, {"model-00001-of-00002.safetensors": b"one", "model.safetensors.index.json": index("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")})  # fmt: skip
    with pytest.raises(IncompleteWeights, match=r"names 2 shards and 1 are missing: model-00002-of-00002\.safetensors"):
        digest_weights(tmp_path)


def test_a_whole_model_beside_old_shards_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", {"model.safetensors": b"new"})
    both = write(tmp_path / "both", {"model.safetensors": b"new", "model-00001-of-00001.safetensors": b"old", "model.safetensors.index.json": index("model-00001-of-00001.safetensors")})  # fmt: skip
    assert digest_weights(both) == digest_weights(whole)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}', b"\xff", b"[" * 100_000])
def test_an_index_that_cannot_be_read_is_an_error_of_one_line(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, {"a.safetensors": b"one", "model.safetensors.index.json": content})
    with pytest.raises(IncompleteWeights, match=r"weight_map.*index\.json"):
        digest_weights(tmp_path)


def test_an_index_reaches_no_file_outside_its_directory(tmp_path: Path) -> None:
    write(tmp_path, {"secret.safetensors": b"outside"})
    inside = write(tmp_path / "model", {"model.safetensors.index.json": index("../secret.safetensors")})
    with pytest.raises(IncompleteWeights, match=r"missing: secret\.safetensors"):
        digest_weights(inside)


def test_an_adapter_is_its_weights_and_its_config_and_names_its_base(tmp_path: Path) -> None:
    write(tmp_path, {"adapter_model.safetensors": b"lora", "adapter_config.json": b'{"base_model_name_or_path": "base", "lora_alpha": 16}'})
    before = digest_weights(tmp_path)
    assert find_weights(tmp_path).base_model == "base"
    write(tmp_path, {"adapter_config.json": b'{"base_model_name_or_path": "base", "lora_alpha": 32}'})
    assert digest_weights(tmp_path) != before


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"base_model_name_or_path": null}'])
def test_an_adapter_whose_base_cannot_be_told_has_none(tmp_path: Path, config: bytes) -> None:
    write(tmp_path, {"adapter_model.safetensors": b"lora", "adapter_config.json": config})
    assert find_weights(tmp_path).base_model is None


def test_progress_is_told_in_bytes_and_ends_at_all_of_them(tmp_path: Path) -> None:
    write(tmp_path, {"a.safetensors": bytes(3 << 20), "b.safetensors": b"end"})
    told: list[tuple[int, int]] = []
    digest_weights(tmp_path, on_progress=lambda done, of: told.append((done, of)))
    n_all = (3 << 20) + 3
    assert told == [(1 << 20, n_all), (2 << 20, n_all), (3 << 20, n_all), (n_all, n_all)]


def test_weights_that_change_while_they_are_read_have_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"model.safetensors": bytes(2 << 20)})

    def read_and_write(path: Path, *, n_bytes: int) -> Iterator[memoryview]:
        for block in read_blocks(path, n_bytes=n_bytes):
            path.write_bytes(b"shorter")
            yield block

    monkeypatch.setattr(weights, "read_blocks", read_and_write)
    with pytest.raises(IncompleteWeights, match=r"2,097,152 bytes and changed while it was read"):
        digest_weights(tmp_path)


def test_a_gguf_file_is_its_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path, {"a.gguf": b"GGUF...", "b.gguf": b"GGUF..."})
    assert digest_weights(tmp_path / "a.gguf") == digest_weights(tmp_path / "b.gguf") == "sha256:" + hashlib.sha256(b"GGUF...").hexdigest()


def test_an_adapter_with_its_base_is_the_weights_of_both(tmp_path: Path) -> None:
    adapter = write(tmp_path / "adapter", {"adapter_model.safetensors": b"lora", "adapter_config.json": b"{}"})
    base, other = (write(tmp_path / name, {"model.safetensors": name.encode()}) for name in ("base", "other"))
    digests = {digest_weights(adapter), digest_weights(adapter, base=base), digest_weights(adapter, base=other), digest_weights(base)}
    assert len(digests) == 4


def test_pickles_are_digested_where_there_are_no_safetensors(tmp_path: Path) -> None:
    shards = {"pytorch_model-00001-of-00002.bin": b"one", "pytorch_model-00002-of-00002.bin": b"two"}
    write(tmp_path, {**shards, "training_args.bin": b"settings"})
    assert [file.name for file in find_weights(tmp_path).files] == sorted(shards)
    write(tmp_path, {"model.safetensors": b"weights"})
    assert [file.name for file in find_weights(tmp_path).files] == ["model.safetensors"]


def test_a_pickled_adapter_names_its_base(tmp_path: Path) -> None:
    write(tmp_path, {"adapter_model.bin": b"lora", "adapter_config.json": b'{"base_model_name_or_path": "base"}'})
    assert find_weights(tmp_path).base_model == "base"
    assert [file.name for file in find_weights(tmp_path).files] == ["adapter_config.json", "adapter_model.bin"]
