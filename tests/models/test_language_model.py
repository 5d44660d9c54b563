from pathlib import Path
from typing import NoReturn

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from klaudit.errors import ModelNotFound
from klaudit.models import language_model
from klaudit.models.language_model import LanguageModel, load_language_model


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
