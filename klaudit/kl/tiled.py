"""Exact divergence of two next-token distributions from hidden states, never holding [tokens, vocabulary].

The product of hidden states and output matrix is taken in tiles of some tokens and some of the vocabulary, and each tile is summed where it lies
(`klaudit.kl.vocabulary_sums`). Products are taken in float32 whatever the weights are, tiles summed in float32, tiles added in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from klaudit.errors import EstimatorError
from klaudit.kl.exact import divergence_terms, widen
from klaudit.kl.output_head import OutputHead
from klaudit.kl.vocabulary_sums import VocabularySums, join_tokens, sum_part

TILE_SHAPES = {"cuda": (2048, 8192)}
"""Tokens and entries of the vocabulary in a tile, by device."""
TILE_SHAPE = (256, 1024)
"""On a CPU: four tiles and the part of the weights under them stay in its caches."""


@dataclass(frozen=True, eq=False, slots=True)
class Divergence:
    """Of two next-token distributions at each of n tokens; float64, in nats.

    NaN stands where a distribution is undefined: a logit that is NaN or +inf, or -inf throughout.
    """

    full: Tensor
    """KL(policy || reference), [n], 0 or more; +inf where the policy has mass on an entry that the reference rules out."""
    policy_entropy: Tensor
    """[n], 0 or more."""
    reference_entropy: Tensor
    """[n], 0 or more."""
    policy_logprobs: Tensor | None = None
    """Log-probability of each of `token_ids` under the policy, [n]; None where no tokens were named."""
    reference_logprobs: Tensor | None = None
    """The same under the reference."""
    forward: Tensor | None = None
    """KL(reference || policy), [n], 0 or more; `with_all`."""
    jensen_shannon: Tensor | None = None
    """Mean KL of the two to their mixture, [n], 0 to ln 2; `with_all`."""
    top_token_ids: Tensor | None = None
    """The entries of the vocabulary that contribute most to `full`, most first, [n, n_top] int64."""
    top_contributions: Tensor | None = None
    """Theirs, `q - p + p log(p / q)`, [n, n_top], 0 or more; over the whole vocabulary these sum to `full`. NaN where `full` is."""


class LogitSource(Protocol):
    """Where a tile's logits come from."""

    n_tokens: int
    n_vocabulary: int
    device: torch.device

    def open(self, entries: slice) -> Callable[[slice | Tensor, Tensor], None]:
        """What writes some tokens' float32 logits of these entries into a tensor."""


class HiddenStates:
    """Logits out of an output head."""

    def __init__(self, hidden: Tensor, head: OutputHead, *, temperature: float) -> None:
        self.hidden, self.head, self.temperature = hidden, head, temperature
        self.n_tokens, self.n_vocabulary, self.device = len(hidden), head.n_vocabulary, hidden.device

    def open(self, entries: slice) -> Callable[[slice | Tensor, Tensor], None]:
        """The weights in between are brought to float32 once for all tokens."""
        head = self.head.select(entries).to_float32()

        def fill(tokens: slice | Tensor, tile: Tensor) -> None:
            head.project(self.hidden[tokens], temperature=self.temperature, out=tile)

        return fill


class GivenLogits:
    """Logits that exist already."""

    def __init__(self, logits: Tensor, *, temperature: float) -> None:
        self.logits, self.temperature = logits, temperature
        self.n_tokens, self.n_vocabulary = logits.shape
        self.device = logits.device

    def open(self, entries: slice) -> Callable[[slice | Tensor, Tensor], None]:
        """A copy, since tiles are overwritten."""

        def fill(tokens: slice | Tensor, tile: Tensor) -> None:
            tile.copy_(self.logits[tokens, entries]).div_(self.temperature)

        return fill


@torch.no_grad()
def measure_divergence(
    policy_hidden: Tensor,
    policy_head: OutputHead,
    *,
    reference_hidden: Tensor,
    reference_head: OutputHead,
    token_ids: Tensor | None = None,
    temperature: float = 1.0,
    n_top: int = 0,
    with_all: bool = False,
) -> Divergence:
    """Divergence at each of n tokens, from last hidden states.

    A model against itself (the same head in memory, equal hidden states) has a divergence of exactly 0.

    Args:
        policy_hidden: the states that predict the tokens, [n, n_hidden], any floating dtype; no masked ones.
        policy_head: of the policy.
        reference_hidden: of the same tokens, [n, its n_hidden].
        reference_head: over the same vocabulary. Where one of two has more entries only because its matrix is padded, `OutputHead.cut` it.
        token_ids: the tokens themselves, [n] int64, for their log-probabilities.
        temperature: the one that the tokens were sampled at; both sides are divided by it.
        n_top: how many contributors to name at each token; asks for a second look at the parts of the vocabulary where they may be.
        with_all: forward KL and Jensen-Shannon too; asks for a second look at everything.

    Raises:
        EstimatorError: tensors that do not fit together, vocabularies of different size, a temperature that is not a positive finite number.
    """
    _require_states(policy_hidden, policy_head, whose="policy")
    _require_states(reference_hidden, reference_head, whose="reference")
    _require_temperature(temperature)
    policy = HiddenStates(policy_hidden, policy_head, temperature=temperature)
    reference = HiddenStates(reference_hidden, reference_head, temperature=temperature)
    is_same = policy_head.is_same(reference_head) and torch.equal(policy_hidden, reference_hidden)
    return _measure(policy, policy if is_same else reference, token_ids=token_ids, n_top=n_top, with_all=with_all)


@torch.no_grad()
def measure_divergence_of_logits(
    policy_logits: Tensor,
    reference_logits: Tensor,
    *,
    token_ids: Tensor | None = None,
    temperature: float = 1.0,
    n_top: int = 0,
    with_all: bool = False,
) -> Divergence:
    """Divergence at each of n tokens, from logits that exist already: for models whose output head is not an `OutputHead`.

    Args:
        policy_logits: [n, n_vocabulary], any floating dtype; looked at in float32.
        reference_logits: of the same tokens and entries.
        token_ids: as for `measure_divergence`, like the rest.

    Raises:
        EstimatorError: as `measure_divergence`.
    """
    for logits in (policy_logits, reference_logits):
        if logits.ndim != 2 or not logits.is_floating_point():
            raise EstimatorError(f"logits must be floating, [n, n_vocabulary]; got {logits.dtype}, {tuple(logits.shape)}")
    _require_temperature(temperature)
    policy, reference = (GivenLogits(logits, temperature=temperature) for logits in (policy_logits, reference_logits))
    return _measure(policy, reference, token_ids=token_ids, n_top=n_top, with_all=with_all)


def _measure(policy: LogitSource, reference: LogitSource, *, token_ids: Tensor | None, n_top: int, with_all: bool) -> Divergence:
    _require_pair(policy, reference, token_ids=token_ids, n_top=n_top)
    tiling = Tiling.of(policy, reference)
    parts: list[VocabularySums] = []
    chosen = None if token_ids is None else torch.empty(2, policy.n_tokens, device=policy.device)
    sums = None
    for entries in tiling.vocabulary:
        part = _sum_part_of_all(tiling, entries, token_ids=token_ids, chosen=chosen)
        sums = part if sums is None else sums.merge(part)
        if n_top:
            parts.append(part)
    assert sums is not None
    full, normalisers = sums.measure_full(), sums.find_normalisers()
    policy_entropy, reference_entropy = sums.measure_entropies()
    policy_logprobs, reference_logprobs = (
        (None, None) if chosen is None else (widen(one) - normaliser for one, normaliser in zip(chosen, normalisers, strict=True))
    )
    forward, jensen_shannon = _measure_others(tiling, normalisers) if with_all else (None, None)
    ids, contributions = _rank_contributors(tiling, parts, normalisers=normalisers, full=full, n_top=n_top) if n_top else (None, None)
    return Divergence(
        full=full,
        policy_entropy=policy_entropy,
        reference_entropy=reference_entropy,
        policy_logprobs=policy_logprobs,
        reference_logprobs=reference_logprobs,
        forward=forward,
        jensen_shannon=jensen_shannon,
        top_token_ids=ids,
        top_contributions=contributions,
    )


@dataclass(frozen=True, eq=False, slots=True)
class Tiling:
    """A pair of logit sources, cut into tiles, and the only memory of a tile's size."""

    policy: LogitSource
    reference: LogitSource
    tokens: Sequence[slice]
    vocabulary: Sequence[slice]
    height: int
    """Most tokens in a tile."""
    memory: Tensor
    """Four tiles, float32."""

    @classmethod
    def of(cls, policy: LogitSource, reference: LogitSource) -> "Tiling":
        """Tiles of equal size, as far as that goes."""
        shape = TILE_SHAPES.get(policy.device.type, TILE_SHAPE)
        tokens, vocabulary = _cut(policy.n_tokens, shape[0]), _cut(policy.n_vocabulary, shape[1])
        height, width = (max(1, *(one.stop - one.start for one in parts)) for parts in (tokens, vocabulary))
        return cls(policy, reference, tokens, vocabulary, height, torch.empty(4, height * width, device=policy.device))

    def open(self, entries: slice) -> Callable[[slice | Tensor], list[Tensor]]:
        """What gives some tokens' logits of these entries, policy's and reference's, and two spare tensors of the same shape."""
        n_entries = entries.stop - entries.start
        fill_policy = self.policy.open(entries)
        fill_reference = None if self.reference is self.policy else self.reference.open(entries)

        def fill(tokens: slice | Tensor) -> list[Tensor]:
            n_tokens = tokens.stop - tokens.start if isinstance(tokens, slice) else len(tokens)
            policy, reference, *spare = (one[: n_tokens * n_entries].view(n_tokens, n_entries) for one in self.memory)
            fill_policy(tokens, policy)
            # the same product a second time may differ in its last digit
            reference.copy_(policy) if fill_reference is None else fill_reference(tokens, reference)
            return [policy, reference, *spare]

        return fill


def _cut(n: int, at_most: int) -> list[slice]:
    """Equal parts, as far as that goes; one empty part of nothing."""
    n_parts = max(1, math.ceil(n / at_most))
    return [slice(*pair) for pair in pairwise(n * number // n_parts for number in range(n_parts + 1))]


def _sum_part_of_all(tiling: Tiling, entries: slice, *, token_ids: Tensor | None, chosen: Tensor | None) -> VocabularySums:
    """Sums of every token over a part of the vocabulary; takes the logits of `token_ids` in it along into `chosen`, [2, n]."""
    fill = tiling.open(entries)
    parts = []
    for tokens in tiling.tokens:
        policy, reference, *spare = fill(tokens)
        if token_ids is not None and chosen is not None:
            within = token_ids[tokens] - entries.start
            here = ((within >= 0) & (within < policy.shape[1])).nonzero()[:, 0]
            for row, logits in zip(chosen[:, tokens], (policy, reference), strict=True):
                row[here] = logits[here, within[here]]
        parts.append(sum_part(policy, reference, spare=(spare[0], spare[1])))
    return join_tokens(parts)


def _measure_others(tiling: Tiling, normalisers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Forward KL and Jensen-Shannon, with both distributions normalised."""
    forward, jensen_shannon = torch.zeros_like(normalisers[0]), torch.zeros_like(normalisers[0])
    for entries in tiling.vocabulary:
        fill = tiling.open(entries)
        for tokens in tiling.tokens:
            p, q = (widen(logits) - one[tokens, None] for logits, one in zip(fill(tokens)[:2], normalisers, strict=True))
            forward[tokens] += divergence_terms(q, p).sum(1)
            mixture = torch.logaddexp(p, q) - math.log(2)
            jensen_shannon[tokens] += (divergence_terms(p, mixture) + divergence_terms(q, mixture)).sum(1) / 2
    return forward, jensen_shannon


def _rank_contributors(
    tiling: Tiling, parts: Sequence[VocabularySums], *, normalisers: tuple[Tensor, Tensor], full: Tensor, n_top: int
) -> tuple[Tensor, Tensor]:
    """The largest terms of `full`, which a token is looked for in a part of the vocabulary only where that part as a whole adds enough."""
    best = torch.full((len(full), n_top), -1.0, dtype=full.dtype, device=full.device)
    ids = torch.zeros((len(full), n_top), dtype=torch.int64, device=full.device)
    # terms are 0 or more, so that none is above the sum of its part; the slack is for the rounding of both
    bounds = [part.move(*normalisers).gap.clamp(min=0) * 1.01 for part in parts]
    order = sorted(range(len(parts)), key=lambda number: -float(bounds[number].nansum()))
    for number in order:
        entries = tiling.vocabulary[number]
        wanted = (bounds[number] > best[:, -1]).nonzero()[:, 0]
        fill = tiling.open(entries)
        for tokens in (wanted[part] for part in _cut(len(wanted), tiling.height)):
            p, q = (widen(logits) - one[tokens, None] for logits, one in zip(fill(tokens)[:2], normalisers, strict=True))
            terms, within = divergence_terms(p, q).topk(min(n_top, p.shape[1]))
            merged = torch.cat([best[tokens], terms], dim=1).topk(n_top)
            best[tokens] = merged.values
            ids[tokens] = torch.cat([ids[tokens], within + entries.start], dim=1).gather(1, merged.indices)
    return ids, best.masked_fill(full.isnan()[:, None], torch.nan)


def _require_states(hidden: Tensor, head: OutputHead, *, whose: str) -> None:
    if hidden.ndim != 2 or not hidden.is_floating_point() or hidden.shape[1] != head.n_hidden:
        raise EstimatorError(
            f"the hidden states of the {whose} must be floating, [n, {head.n_hidden}] as its output head is; "
            f"got {hidden.dtype}, {tuple(hidden.shape)}"
        )
    if hidden.device != head.weight.device:
        raise EstimatorError(
            f"hidden states and output head of the {whose} must be on one device; got {hidden.device} and {head.weight.device}"
        )


def _require_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise EstimatorError(f"temperature must be a positive finite number; got {temperature!r}")


def _require_pair(policy: LogitSource, reference: LogitSource, *, token_ids: Tensor | None, n_top: int) -> None:
    if policy.n_tokens != reference.n_tokens:
        raise EstimatorError(f"policy and reference must be given for the same tokens; got {policy.n_tokens} and {reference.n_tokens}")
    if policy.n_vocabulary != reference.n_vocabulary:
        raise EstimatorError(
            f"policy and reference must have one vocabulary; got {policy.n_vocabulary} and {reference.n_vocabulary} entries. "
            "If their tokenizers are equal and the larger one only pads its matrix, cut its head: OutputHead.cut"
        )
    if policy.device != reference.device:
        raise EstimatorError(f"policy and reference must be on one device; got {policy.device} and {reference.device}")
    if not 0 <= n_top <= policy.n_vocabulary:
        raise EstimatorError(f"n_top must be 0 to {policy.n_vocabulary}, the vocabulary; got {n_top}")
    if token_ids is not None:
        _require_ids(token_ids, n_tokens=policy.n_tokens, n_vocabulary=policy.n_vocabulary)


def _require_ids(token_ids: Tensor, *, n_tokens: int, n_vocabulary: int) -> None:
    if token_ids.shape != (n_tokens,) or token_ids.dtype != torch.int64:
        raise EstimatorError(f"token_ids must be int64, [{n_tokens}]; got {token_ids.dtype}, {tuple(token_ids.shape)}")
    if n_tokens and not (int(token_ids.min()) >= 0 and int(token_ids.max()) < n_vocabulary):
        raise EstimatorError(f"token_ids must be 0 to {n_vocabulary - 1}; got {int(token_ids.min())} to {int(token_ids.max())}")
