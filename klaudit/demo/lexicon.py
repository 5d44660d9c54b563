"""The demo's reward: VADER sentiment with one half of its lexicon; the held-out reward has the other half.

Both are computed from text alone, so they are independent of the KL by construction. A policy that learns the words of the first half
leaves the second behind: over-optimisation of a proxy reward, small enough to watch.

Source: Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text".
"""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Literal

from klaudit.errors import MissingExtra

Half = Literal["trained", "heldout"]


class LexiconScore:
    """Scores completions by the words of one half of VADER's lexicon.

    Args:
        half: which one. A word's half is a bit of its SHA-256, so the halves are disjoint and never change.
        repetition_penalty: subtracted times the share of word pairs that a completion says again.

    Raises:
        MissingExtra: vaderSentiment is not installed.
    """

    def __init__(self, half: Half, *, repetition_penalty: float = 0.0) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingExtra("The demo's reward", "demo") from error
        self._analyzer = SentimentIntensityAnalyzer()
        self._analyzer.lexicon = {word: valence for word, valence in self._analyzer.lexicon.items() if find_half(word) == half}
        self._repetition_penalty = repetition_penalty

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """One score a completion, from -1 (negative) to 1 (positive), less the penalty."""
        return [
            self._analyzer.polarity_scores(completion)["compound"] - self._repetition_penalty * measure_repetition(completion)
            for completion in completions
        ]


def find_half(word: str) -> Half:
    """Which half of the lexicon a word belongs to."""
    return "trained" if hashlib.sha256(word.encode()).digest()[0] & 1 else "heldout"


def measure_repetition(text: str) -> float:
    """Share of a text's word pairs that it has said before, from 0 to 1."""
    words = text.lower().split()
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
