from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from klaudit.callbacks.trainer_settings import (
    find_base_model,
    find_batch_size,
    find_beta,
    find_policy_name,
    find_reference,
    find_trl_version,
    name_library_class,
    name_model,
    note_reference,
)
from klaudit.models.language_model import LanguageModel, load_language_model
from klaudit.records import ReferenceModel
from tests.callbacks.trainings import make_trainer


@pytest.fixture
def saved(tiny: LanguageModel, tmp_path: Path) -> Path:
    tiny.model.save_pretrained(tmp_path / "model")
    tiny.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def add_adapter(path: Path) -> Any:
    config: Any = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(load_language_model(path).model, config)


@pytest.mark.parametrize(
    ("arguments", "beta"),
    [({"kl_coef": 0.1, "beta": 0.2}, 0.1), ({"beta": 0.2}, 0.2), ({"beta": "auto"}, None), ({"beta": True}, None), ({}, None)],
)
def test_beta_is_found_under_the_names_that_trainers_have_for_it(arguments: dict[str, Any], beta: float | None) -> None:
    assert find_beta(SimpleNamespace(**arguments)) == beta


def test_the_beta_in_force_is_the_one_that_the_trainer_copied() -> None:
    assert find_beta(SimpleNamespace(beta=0.1), SimpleNamespace(beta=0.3)) == 0.3
    assert find_beta(SimpleNamespace(beta=0.1), SimpleNamespace()) == 0.1
    assert find_beta(SimpleNamespace(beta=[0.1, 0.2]), SimpleNamespace(beta=0.1)) == 0.1


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"batch_size": 64, "per_device_train_batch_size": 4}, 64),
        ({"per_device_train_batch_size": 4, "world_size": 2, "gradient_accumulation_steps": 3}, 24),
        ({"per_device_train_batch_size": 4}, 4),
        ({"batch_size": None}, None),
    ],
)
def test_the_batch_is_what_all_ranks_sample_before_an_update(arguments: dict[str, Any], size: int | None) -> None:
    assert find_batch_size(SimpleNamespace(**arguments)) == size


def test_a_model_is_called_what_it_was_loaded_from() -> None:
    assert name_model(SimpleNamespace(config=SimpleNamespace(_name_or_path="org/model"))) == "org/model"
    assert name_model(SimpleNamespace(config=SimpleNamespace(_name_or_path=""))) is None
    assert name_model(None) is None


def test_a_reference_that_lies_nowhere_has_a_name_and_no_digest(tiny: LanguageModel, tmp_path: Path) -> None:
    trainer = make_trainer(tiny, tmp_path / "out")
    assert find_reference(trainer) == ReferenceModel("tiny", None)
    assert find_policy_name(trainer) == "tiny"


def test_trls_reference_is_found_under_its_own_name(saved: Path) -> None:
    ref_model = SimpleNamespace(config=SimpleNamespace(_name_or_path=str(saved)))
    assert find_reference(SimpleNamespace(ref_model=ref_model)) == ReferenceModel(str(saved))
    assert find_reference(SimpleNamespace(ref_model=None)) is None
    assert find_reference(None) is None
    assert find_policy_name(SimpleNamespace(policy=object())) is None


def test_the_reference_of_an_adapter_is_its_base_model(saved: Path) -> None:
    policy = add_adapter(saved)
    base = ReferenceModel(str(saved))
    assert find_reference(SimpleNamespace(ref_model=None, model=policy)) == base
    assert find_base_model(policy) == base
    assert note_reference(policy) == "reference: the base model, adapter off"
    assert note_reference(policy, trainer=SimpleNamespace(ref_model=object())) is None


def test_an_adapter_that_trl_copied_is_the_reference_and_no_file_has_its_digest(saved: Path) -> None:
    policy = add_adapter(saved)
    policy.add_adapter("ref", policy.peft_config["default"])
    assert find_base_model(policy) == ReferenceModel(f"{saved} with adapter 'ref'")
    assert note_reference(policy) == "reference: the base model with the adapter that training began with"


def test_a_model_without_an_adapter_has_no_base(tiny: LanguageModel) -> None:
    assert find_base_model(tiny.model) is None
    assert note_reference(tiny.model) is None


class MyTrainer(Trainer):
    """As people write them."""


def test_a_class_of_ones_own_is_known_by_what_it_is_made_from() -> None:
    assert name_library_class(object.__new__(MyTrainer)) == "Trainer"
    assert name_library_class(object.__new__(TrainingArguments)) == "TrainingArguments"
    assert name_library_class(SimpleNamespace()) == "SimpleNamespace"
    assert name_library_class(None) is None
    assert find_trl_version(object.__new__(MyTrainer), None) is None
