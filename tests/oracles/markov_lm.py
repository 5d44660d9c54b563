"""A language model small enough to be exact: 32 tokens, the next token depends on the last one only.

Any statistic that is a sum over tokens has its mean and variance over all 32^24 sequences by dynamic programming, and the probability that such
a sum is negative by inverting its characteristic function; nothing is sampled unless a test asks for samples.

Both models start from token 0. Reference logits are 1.5 N(0, 1) from `numpy.random.default_rng(7)`, the policy adds sigma N(0, 1) from
`default_rng(11)`: with this generator and start the published exact column comes back to every digit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_VOCABULARY = 32
N_TOKENS = 24
START = 0


@dataclass(frozen=True)
class MarkovPair:
    """A policy and its reference."""

    policy_logits: Array
    """[N_VOCABULARY, N_VOCABULARY]: row = last token, column = next token."""
    reference_logits: Array
    """Same shape."""

    @property
    def policy_logprobs(self) -> Array:
        return log_softmax(self.policy_logits)

    @property
    def reference_logprobs(self) -> Array:
        return log_softmax(self.reference_logits)

    def exact_kl(self) -> float:
        """KL(policy || reference) of whole sequences, in nats."""
        policy = np.exp(self.policy_logprobs)
        step_kl = (policy * (self.policy_logprobs - self.reference_logprobs)).sum(-1)
        ahead = np.zeros(N_VOCABULARY)
        for _ in range(N_TOKENS):
            ahead = step_kl + policy @ ahead
        return float(ahead[START])


def make_markov_pair(sigma: float) -> MarkovPair:
    """The oracle at distance `sigma`."""
    shape = (N_VOCABULARY, N_VOCABULARY)
    reference = 1.5 * np.random.default_rng(7).standard_normal(shape)
    return MarkovPair(reference + sigma * np.random.default_rng(11).standard_normal(shape), reference)


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def cut_to_top(logits: Array, k: int) -> Array:
    """Logits of top-k sampling: all but the k largest of a row are -inf."""
    return np.where(logits >= np.sort(logits, axis=-1)[:, [-k]], logits, -np.inf)


def measure_sum(token_values: Array, *, sampler_logits: Array) -> tuple[float, float]:
    """Mean and standard deviation, over sequences of the sampler, of the sum over tokens of `token_values[last, next]`."""
    sampler = np.exp(log_softmax(sampler_logits))
    mean, second = np.zeros(N_VOCABULARY), np.zeros(N_VOCABULARY)
    for _ in range(N_TOKENS):
        mean, second = (
            (sampler * (token_values + mean)).sum(-1),
            (sampler * (token_values**2 + 2 * token_values * mean + second)).sum(-1),
        )
    return float(mean[START]), float(np.sqrt(max(second[START] - mean[START] ** 2, 0.0)))


def measure_negative_share(token_values: Array, *, sampler_logits: Array, n_frequencies: int = 4000) -> float:
    """Probability that the sum over tokens is below 0, by Gil-Pelaez inversion: 1/2 - 1/pi * integral of Im(phi(u)) / u over u > 0."""
    sampler = np.exp(log_softmax(sampler_logits))
    _, deviation = measure_sum(token_values, sampler_logits=sampler_logits)
    width = 12 / deviation / n_frequencies
    frequencies = (np.arange(n_frequencies) + 0.5) * width
    characteristic = np.ones((n_frequencies, N_VOCABULARY), dtype=np.complex128)
    kernel = sampler * np.exp(1j * frequencies[:, None, None] * token_values)
    for _ in range(N_TOKENS):
        characteristic = np.einsum("fij,fj->fi", kernel, characteristic)
    return float(0.5 - (characteristic[:, START].imag / frequencies).sum() * width / np.pi)


def sample_tokens(logits: Array, *, n_sequences: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Sequences of the model, [n_sequences, N_TOKENS + 1], the start token in front."""
    cumulative = np.exp(log_softmax(logits)).cumsum(-1)
    tokens = np.full((n_sequences, N_TOKENS + 1), START)
    for t in range(N_TOKENS):
        draws = rng.random((n_sequences, 1))
        tokens[:, t + 1] = np.minimum((draws > cumulative[tokens[:, t]]).sum(-1), N_VOCABULARY - 1)
    return tokens
