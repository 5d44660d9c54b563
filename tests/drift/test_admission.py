from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from klaudit.drift.admission import require_measurable
from klaudit.drift.identity import identify_model
from klaudit.drift.passages import Passages
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig, ModelNotFound
from klaudit.models import language_model as loading
from klaudit.models.language_model import LanguageModel
from tests.drift.tiny_models import WORDS, add_first_token, build_model

Save = Callable[[LanguageModel, str], Path]
PROMPTS = PromptSet("tiny", ("a", "b c"))
PASSAGES = Passages("short", ("a b", "c d e"))


def admit(
    *checkpoints: Path, reference: Path, prompts: PromptSet = PROMPTS, passages: Passages | None = PASSAGES, max_new_tokens: int = 3
) -> None:
    require_measurable(
        [identify_model(one) for one in checkpoints],
        reference=identify_model(reference),
        prompts=prompts,
        passages=passages,
        max_new_tokens=max_new_tokens,
    )


def test_what_goes_together_is_admitted_without_a_weight_and_checkpoints_of_one_setup_are_read_once(
    save_model: Save, reference: LanguageModel, policy: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, first, second = (save_model(one, name) for one, name in ((reference, "base"), (policy, "first"), (policy, "second")))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    read: list[str] = []

    def remember(name: str, **options: bool) -> LanguageModel:
        read.append(Path(name).name)
        return loading.load_outline(name, **options)

    monkeypatch.setattr("klaudit.drift.admission.load_outline", remember)
    admit(first, second, reference=base)
    assert read == ["base", "first"]


def test_the_one_of_many_checkpoints_that_does_not_fit_is_named(save_model: Save, reference: LanguageModel, policy: LanguageModel) -> None:
    base, fits = save_model(reference, "base"), save_model(policy, "fits")
    for words, said in (
        ((*WORDS, "h"), "larger and .* must share a vocabulary"),
        ((*WORDS[:-1], "z"), "larger and .* must share a tokenizer"),
    ):
        larger = save_model(build_model(words=words), "larger")
        with pytest.raises(InvalidConfig, match=said):
            admit(fits, larger, reference=base)
    with pytest.raises(InvalidConfig, match=r"bos and .* must make the same tokens of a text"):
        admit(fits, save_model(add_first_token(policy), "bos"), reference=base)


def test_texts_that_the_models_cannot_take_are_refused(save_model: Save, reference: LanguageModel) -> None:
    base = save_model(reference, "base")
    with pytest.raises(InvalidConfig, match=r"does not fit into the context of .*base, 64 tokens"):
        admit(base, reference=base, max_new_tokens=63)
    admit(base, reference=base, max_new_tokens=62)
    with pytest.raises(InvalidConfig, match=r"Text 'short' needs at least 2 passages of 2 tokens or more; it has 1\. Give longer ones"):
        admit(base, reference=base, passages=replace(PASSAGES, texts=("a", "c d e")))
    admit(base, reference=base, passages=None)


def test_a_checkpoint_without_its_tokenizer_is_named(save_model: Save, reference: LanguageModel) -> None:
    base, bare = save_model(reference, "base"), save_model(reference, "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(ModelNotFound, match="bare has no tokenizer beside it"):
        admit(bare, reference=base)
