"""How well a checkpoint still predicts text that the reference predicts: what training took away beside what it was for."""

from collections.abc import Sequence

from klaudit.drift.interval import MeanInterval, estimate_ratio
from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.passages import Passages
from klaudit.drift.vocabulary import find_common_vocabulary, require_same_encoding
from klaudit.errors import InvalidConfig
from klaudit.records import Interval, Retention


def measure_retention(policy: LoadedModel, reference: LoadedModel, *, passages: Passages, batch_size: int) -> Retention:
    """Negative log-likelihood of the passages under both models, nats per token, and the rise passage by passage.

    Each is total nats over total tokens with passages as clusters (`estimate_ratio`). The rise is of the same passages, so that what makes one
    passage harder than another cancels.

    Args:
        policy: the checkpoint.
        reference: what it was trained from.
        passages: two or more.
        batch_size: passages read together; halved where memory runs out.

    Raises:
        InvalidConfig: models that do not share a tokenizer, or make other tokens of a passage; fewer than two passages of two tokens or more.
    """
    find_common_vocabulary(policy.language_model, reference=reference.language_model)
    require_same_encoding(policy.language_model, reference=reference.language_model, texts=passages.texts)
    of_policy, of_reference = (one.recall_nats(passages, batch_size=batch_size) for one in (policy, reference))
    counted = [(ours, theirs, n) for (ours, n), (theirs, _) in zip(of_policy, of_reference, strict=True) if n]
    require_two_passages(passages, n_predicted=[n for _, n in of_policy])
    sizes = [float(n) for _, _, n in counted]

    def estimate(totals: list[float]) -> MeanInterval:
        return estimate_ratio(totals, sizes=sizes, clusters=range(len(sizes)))

    return Retention(
        text=passages.name,
        text_digest=passages.digest,
        policy_nats=_to_interval(estimate([ours for ours, _, _ in counted])),
        reference_nats=_to_interval(estimate([theirs for _, theirs, _ in counted])),
        rise=_to_interval(estimate([ours - theirs for ours, theirs, _ in counted])),
        n_tokens=sum(n for _, _, n in counted),
        n_passages=len(counted),
    )


def require_two_passages(passages: Passages, *, n_predicted: Sequence[int]) -> None:
    """Refuse a text of which no interval can be had.

    Args:
        passages: of the text.
        n_predicted: tokens of each that are predicted, all but the first.

    Raises:
        InvalidConfig: fewer than two passages of two tokens or more.
    """
    n_long = sum(n > 0 for n in n_predicted)
    if n_long < 2:
        raise InvalidConfig(
            f"Text {passages.name!r} needs at least 2 passages of 2 tokens or more; it has {n_long}. Give longer ones with --retention"
        )


def _to_interval(mean: MeanInterval) -> Interval:
    return Interval(mean.value, mean.low, mean.high)
