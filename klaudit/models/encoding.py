"""The tokens of a text, all of which the model has a row for."""

from typing import Any

from klaudit.errors import InvalidConfig
from klaudit.models.language_model import LanguageModel


def encode_text(language_model: LanguageModel, text: str) -> list[int]:
    """Token ids of a text, with the special tokens that the tokenizer adds.

    Raises:
        InvalidConfig: a token beyond the rows of the model's input embeddings, where these are counted.
    """
    token_ids: list[int] = language_model.tokenizer.encode(text)
    n_rows = _count_rows(language_model)
    beyond = next((token_id for token_id in token_ids if n_rows is not None and token_id >= n_rows), None)
    if beyond is not None:
        token = language_model.tokenizer.convert_ids_to_tokens(beyond)
        raise InvalidConfig(
            f"{language_model.name} must have an embedding of every token of the text {text[:60]!r}; {token!r} has id {beyond} and the model "
            f"{n_rows} rows. Give it the tokenizer that it was trained with, or resize its embeddings."
        )
    return token_ids


def _count_rows(language_model: LanguageModel) -> int | None:
    """Rows of the input embeddings; None where the model does not say."""
    try:
        embeddings: Any = language_model.model.get_input_embeddings()
    except NotImplementedError:
        return None
    # not the weight's shape: a weight that is spread over machines has none here
    rows: int | None = getattr(embeddings, "num_embeddings", None)
    return rows
