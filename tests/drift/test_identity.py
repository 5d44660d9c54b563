import json
from collections.abc import Callable
from pathlib import Path

import pytest

from klaudit.digests import digest_weights
from klaudit.drift.identity import identify_model
from klaudit.errors import ModelNotFound
from klaudit.models.language_model import LanguageModel

SaveModel = Callable[[LanguageModel, str], Path]


def test_same_model_in_two_places_is_one_by_content(reference: LanguageModel, save_model: SaveModel) -> None:
    first, second = (identify_model(save_model(reference, name)) for name in ("one", "two"))
    assert (first.digest, first.setup_digest) == (second.digest, second.setup_digest)
    assert first.name != second.name
    assert first.digest == digest_weights(first.name)


def test_other_weights_have_another_digest_and_the_same_setup(
    reference: LanguageModel, policy: LanguageModel, save_model: SaveModel
) -> None:
    first, second = identify_model(save_model(reference, "one")), identify_model(save_model(policy, "two"))
    assert first.digest != second.digest
    assert first.setup_digest == second.setup_digest


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "rope_parameters", {"rope_theta": 5.0}),
        ("generation_config.json", "eos_token_id", [0, 3]),
        ("tokenizer.json", "normalizer", {}),
    ],
)
def test_setup_that_changes_numbers_shows(reference: LanguageModel, save_model: SaveModel, name: str, key: str, value: object) -> None:
    path = save_model(reference, "one")
    before = identify_model(path)
    fields = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps(fields | {key: value}))
    after = identify_model(path)
    assert after.setup_digest != before.setup_digest
    assert after.digest == before.digest


def test_who_saved_a_model_and_how_its_tokenizer_was_used_last_is_no_part_of_it(reference: LanguageModel, save_model: SaveModel) -> None:
    path = save_model(reference, "one")
    before = identify_model(path)
    for name, changes in (
        ("config.json", {"transformers_version": "9.9", "_name_or_path": "elsewhere"}),
        ("tokenizer.json", {"truncation": {"max_length": 5}}),
    ):
        fields = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps(fields | changes))
    (path / "trainer_state.json").write_text("{}")
    assert identify_model(path) == before


def test_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        identify_model(tmp_path / "nowhere")
