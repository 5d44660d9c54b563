"""Whether token ids mean the same to two models: only then is their KL a number with a meaning."""

from collections.abc import Iterable
from itertools import zip_longest

from klaudit.errors import InvalidConfig
from klaudit.models.language_model import LanguageModel

REMEDY = "Measure a checkpoint against the model that it was trained from."


def find_common_vocabulary(policy: LanguageModel, *, reference: LanguageModel) -> int:
    """How many logits, from the first, mean the same to both models.

    All of them where both have as many. Where one has more, its surplus is compared with nothing: it must be padding, rows without a token behind
    them, as those are that round a matrix up to a multiple of 64.

    Raises:
        InvalidConfig: another token behind an id, or tokens among the surplus.
    """
    of_policy, of_reference = policy.tokenizer.get_vocab(), reference.tokenizer.get_vocab()
    sizes = count_logits(policy), count_logits(reference)
    if sizes[0] != sizes[1] and max(max(one.values(), default=-1) for one in (of_policy, of_reference)) >= min(sizes):
        raise InvalidConfig(
            f"{policy.name} and {reference.name} must share a vocabulary; they have {sizes[0]} and {sizes[1]} tokens. {REMEDY}"
        )
    if of_policy != of_reference:
        token, token_id = min(of_policy.items() ^ of_reference.items(), key=lambda item: (item[1], item[0]))
        raise InvalidConfig(
            f"{policy.name} and {reference.name} must share a tokenizer; {token!r} with id {token_id} is in only one of them. {REMEDY}"
        )
    return min(sizes)


def require_same_vocabulary(policy: LanguageModel, *, reference: LanguageModel) -> None:
    """Refuse two models whose logits differ in number or meaning.

    Raises:
        InvalidConfig: as `find_common_vocabulary`, and where one of them has more padding than the other.
    """
    n_common = find_common_vocabulary(policy, reference=reference)
    sizes = count_logits(policy), count_logits(reference)
    if max(sizes) > n_common:
        raise InvalidConfig(
            f"{policy.name} and {reference.name} must share a vocabulary; they have {sizes[0]} and {sizes[1]} logits, padding included. {REMEDY}"
        )


def require_same_encoding(policy: LanguageModel, *, reference: LanguageModel, texts: Iterable[str]) -> None:
    """Refuse two tokenizers that make other tokens of a text: with one vocabulary they may still differ in what they add, or in how they cut.

    Raises:
        InvalidConfig: of the first such text.
    """
    if policy.tokenizer is reference.tokenizer:
        return
    for text in texts:
        ours, theirs = policy.tokenizer.encode(text), reference.tokenizer.encode(text)
        place = next((place for place, (one, other) in enumerate(zip_longest(ours, theirs)) if one != other), None)
        if place is not None:
            raise InvalidConfig(
                f"{policy.name} and {reference.name} must make the same tokens of a text; of {text[:60]!r} they make {len(ours)} and {len(theirs)}, "
                f"from token {place + 1} on with the ids {ours[place : place + 3]} and {theirs[place : place + 3]}. Copy the reference's tokenizer "
                "files to the checkpoint if it was trained with them."
            )


def count_logits(language_model: LanguageModel) -> int:
    """Entries of the vocabulary that the model predicts, padding included."""
    return int(language_model.model.config.get_text_config().vocab_size)
