from collections.abc import Callable
from pathlib import Path

import pytest

from klaudit.models.language_model import LanguageModel
from tests.drift.tiny_models import add_weight_noise, build_model


@pytest.fixture
def reference() -> LanguageModel:
    return build_model()


@pytest.fixture
def policy(reference: LanguageModel) -> LanguageModel:
    """The reference with 30% of weight noise."""
    return add_weight_noise(reference, relative=0.3)


@pytest.fixture
def save_model(tmp_path: Path) -> Callable[[LanguageModel, str], Path]:
    """Saves as a trainer does, and gives the directory."""

    def save(language_model: LanguageModel, name: str) -> Path:
        path = tmp_path / name
        language_model.model.save_pretrained(path)
        language_model.tokenizer.save_pretrained(path)
        return path

    return save
