"""Whether models, prompts and text go together, as far as it shows before any weight is loaded."""

from collections.abc import Sequence

from klaudit.drift.passages import Passages
from klaudit.drift.plan import ModelIdentity
from klaudit.drift.prompt_set import PromptSet
from klaudit.drift.retention import require_two_passages
from klaudit.drift.vocabulary import find_common_vocabulary, require_same_encoding
from klaudit.models.encoding import encode_text
from klaudit.models.language_model import LanguageModel, load_outline
from klaudit.models.sampling import encode_prompts


def require_measurable(
    checkpoints: Sequence[ModelIdentity],
    *,
    reference: ModelIdentity,
    prompts: PromptSet,
    passages: Passages | None,
    max_new_tokens: int,
    allow_pickle: bool = False,
) -> None:
    """Refuse what `measure_shard` and `measure_retention` would refuse, from configurations and tokenizers alone.

    Checkpoints that have both in common are looked at once.

    Args:
        checkpoints: to be measured.
        reference: against what.
        prompts: of the completions.
        passages: of the retention; None: not measured.
        max_new_tokens: of a completion.
        allow_pickle: as in `ShardTask`.

    Raises:
        InvalidConfig: a checkpoint that does not share the reference's vocabulary or tokenizer, a prompt that has no tokens or does not fit into a
            context together with its completion, a text too short to say anything.
        ModelNotFound: a model without a tokenizer, or whose configuration cannot be read.
        UnsupportedModel: pickles that are not allowed.
    """
    against = load_outline(reference.name, allow_pickle=allow_pickle)
    _require_readable(against, prompts=prompts, passages=passages, max_new_tokens=max_new_tokens)
    texts = (*dict.fromkeys(prompts.prompts), *(passages.texts if passages else ()))
    distinct = {one.setup_digest: one for one in reversed(checkpoints)}
    for one in reversed(distinct.values()):
        policy = load_outline(one.name, allow_pickle=allow_pickle)
        find_common_vocabulary(policy, reference=against)
        require_same_encoding(policy, reference=against, texts=texts)
        _require_readable(policy, prompts=prompts, passages=passages, max_new_tokens=max_new_tokens)


def _require_readable(language_model: LanguageModel, *, prompts: PromptSet, passages: Passages | None, max_new_tokens: int) -> None:
    encode_prompts(language_model, prompts=prompts.prompts, n_reserved=max_new_tokens)
    if passages is not None:
        require_two_passages(passages, n_predicted=[len(encode_text(language_model, text)) - 1 for text in passages.texts])
