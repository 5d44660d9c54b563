"""A model in memory, with what was found out about it and need not be found out again."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from klaudit.drift.passages import Passages
from klaudit.errors import UnsupportedHead
from klaudit.kl.output_head import OutputHead
from klaudit.models.language_model import LanguageModel
from klaudit.models.output_head import find_output_head
from klaudit.models.perplexity import measure_nats
from klaudit.models.sampling import Rollout

MOST_HIDDEN_BYTES = 256 << 20
"""Hidden states that are kept with rollouts; above that they are computed again."""


@dataclass(eq=False)
class LoadedModel:
    """Policy or reference of a measurement, dropout off."""

    language_model: LanguageModel
    _rollouts: dict[Hashable, Rollout] = field(default_factory=dict, init=False)
    _n_hidden_bytes: int = field(default=0, init=False)
    _nats: dict[str, list[tuple[float, int]]] = field(default_factory=dict, init=False)
    _tokens: dict[int, str] = field(default_factory=dict, init=False)

    @cached_property
    def head(self) -> OutputHead | None:
        """None where it is not known how hidden states become logits: then logits are asked for."""
        try:
            return find_output_head(self.language_model.model)
        except UnsupportedHead:
            return None

    def recall_rollout(self, key: Hashable, sample: Callable[[], Rollout]) -> Rollout:
        """What was sampled under `key`, else what `sample` gives: the reference writes once for all checkpoints."""
        if key not in self._rollouts:
            rollout = sample()
            n_bytes = 0 if rollout.hidden is None else rollout.hidden.nbytes
            is_kept = self._n_hidden_bytes + n_bytes <= MOST_HIDDEN_BYTES
            self._rollouts[key] = rollout if is_kept else replace(rollout, hidden=None)
            self._n_hidden_bytes += n_bytes if is_kept else 0
            return rollout
        return self._rollouts[key]

    def recall_nats(self, passages: Passages, *, batch_size: int) -> list[tuple[float, int]]:
        """Nats and predicted tokens of each passage."""
        if passages.digest not in self._nats:
            self._nats[passages.digest] = measure_nats(self.language_model, passages.texts, batch_size=batch_size)
        return self._nats[passages.digest]

    def decode_tokens(self, token_ids: Sequence[int]) -> tuple[str, ...]:
        """Text of each token by itself."""
        for token_id in token_ids:
            if token_id not in self._tokens:
                self._tokens[token_id] = str(self.language_model.tokenizer.decode([token_id]))
        return tuple(self._tokens[token_id] for token_id in token_ids)
