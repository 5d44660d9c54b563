import json
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from klaudit.digests import digest_weights
from klaudit.errors import IncompleteWeights, ModelNotFound, UnsupportedModel
from klaudit.models import language_model
from klaudit.models.language_model import LanguageModel, load_language_model, load_outline


def refuse_network(*_args: object, **_kwargs: object) -> NoReturn:
    raise AssertionError("a local path went to the network")


def test_a_saved_model_comes_back_with_the_same_weights(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = load_language_model(tmp_path)
    assert loaded.path == tmp_path.resolve()
    assert not loaded.model.training
    for name, weights in tiny.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weights)
    assert loaded.tokenizer.encode("w5 w6") == [5, 6]


@pytest.mark.parametrize("name", ["./missing", "/no/such/model", "~/no-such-model", "a/b/c", ""])
def test_a_missing_path_is_said_in_one_line_without_asking_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "snapshot_download", refuse_network)
    with pytest.raises(ModelNotFound, match="No model directory at") as caught:
        load_language_model(name)
    assert "\n" not in str(caught.value)


def test_a_missing_directory_below_one_that_exists_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "snapshot_download", refuse_network)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelNotFound, match="No model directory at 'runs/checkpoint-9'"):
        load_language_model("runs/checkpoint-9")


def test_a_hub_id_that_cannot_be_fetched_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> NoReturn:
        raise LocalEntryNotFoundError("offline\nvery")

    monkeypatch.setattr(language_model, "snapshot_download", fail)
    with pytest.raises(ModelNotFound, match="No model 'someone/some-model'") as caught:
        load_language_model("someone/some-model")
    assert "\n" not in str(caught.value)


def test_a_directory_without_a_model_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="Expected a causal language model") as caught:
        load_language_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_outline_answers_as_the_model_does_and_holds_no_weights(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    outline, loaded = load_outline(tmp_path), load_language_model(tmp_path)
    assert {parameter.device.type for parameter in outline.model.parameters()} == {"meta"}
    assert (outline.n_context, outline.name, outline.path) == (loaded.n_context, loaded.name, loaded.path)
    assert [one.shape for one in outline.model.parameters()] == [one.shape for one in loaded.model.parameters()]
    assert outline.tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelNotFound, match="Expected a causal language model with its tokenizer in"):
        load_outline(tmp_path)


def test_a_name_that_folders_below_have_is_answered_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> NoReturn:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(language_model, "snapshot_download", fail)
    monkeypatch.chdir(tmp_path)
    for place in ("a/checkpoint-9", "a/b/checkpoint-9", "a/b/c/checkpoint-10", "owner"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "checkpoint-9").write_text("no folder")
    with pytest.raises(ModelNotFound, match=r"Did you mean \./a/checkpoint-9 or \./a/b/checkpoint-9\? Check the name"):
        load_language_model("checkpoint-9")
    for unknown in ("checkpoint-10", "[a]"):
        with pytest.raises(ModelNotFound) as caught:
            load_language_model(unknown)
        assert "Did you mean" not in str(caught.value)


def test_a_frozen_copy_keeps_its_weights_while_the_policy_moves(tiny: LanguageModel) -> None:
    frozen = tiny.freeze_copy()
    assert not any(parameter.requires_grad for parameter in frozen.model.parameters())
    before = [parameter.clone() for parameter in frozen.model.parameters()]
    with torch.no_grad():
        for parameter in tiny.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(now, then) for now, then in zip(frozen.model.parameters(), before, strict=True))


def test_every_declared_end_of_sequence_counts(tiny: LanguageModel) -> None:
    assert tiny.model.generation_config is not None
    tiny.model.generation_config.eos_token_id = [7, 0]
    assert tiny.eos_token_ids == (0, 7)


@pytest.fixture
def saved(tiny: LanguageModel, tmp_path: Path) -> Path:
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def save_pickle(directory: Path) -> None:
    """The directory's weights as a pickle in place of safetensors."""
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def test_a_model_in_shards_comes_back_whole_and_a_missing_shard_is_named(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path, max_shard_size="20KB")
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = load_language_model(tmp_path)
    assert all(torch.equal(loaded.model.state_dict()[name], weights) for name, weights in tiny.model.state_dict().items())
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    with pytest.raises(IncompleteWeights, match=rf"1 are missing: {shards[1].name}"):
        load_language_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage" * 20, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_weights_are_said_in_one_line(saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelNotFound) as caught:
        load_language_model(saved)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


def test_tensors_that_are_missing_are_never_made_up(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(saved / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        IncompleteWeights, match=r"no weights for 1 tensors of its LlamaForCausalLM: model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_language_model(saved)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.pt", "pytorch_model-00001-of-00002.bin"])
def test_pickles_are_refused_by_name(saved: Path, name: str) -> None:
    save_pickle(saved)
    (saved / "pytorch_model.bin").rename(saved / name)
    (saved / "optimizer.pt").touch()
    with pytest.raises(UnsupportedModel, match=rf"pickle only \({name}\).*--allow-pickle") as caught:
        load_language_model(saved)
    assert caught.value.exit_code == 2


def test_a_pickle_that_is_allowed_is_loaded(saved: Path, tiny: LanguageModel) -> None:
    save_pickle(saved)
    loaded = load_language_model(saved, allow_pickle=True)
    assert all(torch.equal(loaded.model.state_dict()[name], weights) for name, weights in tiny.model.state_dict().items())
    assert digest_weights(saved).startswith("sha256:")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (Path("was-run"),)


def test_a_pickle_that_is_allowed_still_runs_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    save_pickle(saved)
    torch.save({"model.norm.weight": Payload()}, saved / "pytorch_model.bin")
    with pytest.raises(ModelNotFound) as caught:
        load_language_model(saved, allow_pickle=True)
    assert not (saved / "was-run").exists()
    assert "\n" not in str(caught.value)


def test_pickles_beside_safetensors_are_not_looked_at(saved: Path) -> None:
    (saved / "pytorch_model.bin").write_bytes(b"anything")
    (saved / "training_args.bin").write_bytes(b"anything")
    load_language_model(saved)


def test_a_missing_tokenizer_is_named(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    with pytest.raises(ModelNotFound, match=r"has no tokenizer beside it: expected tokenizer\.json"):
        load_language_model(tmp_path)


def test_code_that_comes_with_a_model_is_not_run(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}}
    (saved / "config.json").write_text(json.dumps(config))
    (saved / "mine.py").write_text("raise AssertionError('code of a model was run')")
    with pytest.raises(ModelNotFound, match="Expected a causal language model") as caught:
        load_language_model(saved)
    assert "\n" not in str(caught.value)


def test_the_context_is_what_the_config_says(tiny: LanguageModel) -> None:
    assert tiny.n_context == 128
