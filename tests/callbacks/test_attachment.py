from pathlib import Path
from types import SimpleNamespace

import pytest

import klaudit
from klaudit.digests import digest_weights
from klaudit.errors import InvalidConfig
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.records import ReferenceModel
from klaudit.store import Store
from tests.callbacks.trainings import make_trainer


@pytest.fixture
def saved(tiny: LanguageModel, tmp_path: Path) -> Path:
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_reference_is_known_by_its_weights(saved: Path, tmp_path: Path, store_url: str, store: Store) -> None:
    trainer = make_trainer(load_language_model(saved), tmp_path / "out", max_steps=1)
    klaudit.attach(trainer, run="tiny-run", store=store_url)
    trainer.train()
    run = store.runs.get("tiny-run")
    assert run.reference == ReferenceModel(str(saved), digest_weights(saved))
    assert run.policy == str(saved)


def test_a_trainer_without_callbacks_is_refused_and_told_of_start_run() -> None:
    with pytest.raises(InvalidConfig, match=r"add_callback; got SimpleNamespace\. .*klaudit\.start_run"):
        klaudit.attach(SimpleNamespace(), run="a")
