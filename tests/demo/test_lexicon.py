import sys

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer  # type: ignore[import-untyped]

from klaudit.demo.lexicon import LexiconScore, find_half, measure_repetition
from klaudit.errors import MissingExtra


def test_the_halves_share_no_word_and_leave_none_out() -> None:
    trained, heldout = LexiconScore("trained")._analyzer.lexicon, LexiconScore("heldout")._analyzer.lexicon
    assert set(trained) & set(heldout) == set()
    assert {**trained, **heldout} == SentimentIntensityAnalyzer().lexicon
    assert 0.45 < len(trained) / (len(trained) + len(heldout)) < 0.55


def test_a_word_of_one_half_says_nothing_to_the_other() -> None:
    # SHA-256 of "good" begins with 77, odd, and that of "love" with 68, even (coreutils sha256sum).
    assert (find_half("good"), find_half("love")) == ("trained", "heldout")
    trained, heldout = LexiconScore("trained"), LexiconScore("heldout")
    texts = ["good", "love"]
    good, love = (SentimentIntensityAnalyzer().polarity_scores(text)["compound"] for text in texts)
    assert trained(["", ""], texts) == [good, 0.0]
    assert heldout(["", ""], texts) == [0.0, love]


def test_with_both_halves_the_score_would_be_vaders_compound() -> None:
    text = "The film was great, I love it."
    score = LexiconScore("trained")
    score._analyzer.lexicon = SentimentIntensityAnalyzer().lexicon
    assert score(["The film"], [text]) == [SentimentIntensityAnalyzer().polarity_scores(text)["compound"]]


def test_only_the_completion_counts() -> None:
    score = LexiconScore("trained")
    assert score(["great good love happy nice"], ["was there"]) == [0.0]


@pytest.mark.parametrize(
    ("text", "share"), [("", 0), ("one", 0), ("a b c", 0), ("a a a", 0.5), ("good good good good good", 0.75), ("A b a B", 1 / 3)]
)
def test_repetition_is_the_share_of_word_pairs_said_before(text: str, share: float) -> None:
    assert measure_repetition(text) == pytest.approx(share)


def test_repetition_costs_what_it_is_told_to_cost() -> None:
    assert LexiconScore("trained", repetition_penalty=2.0)([""], ["x x x"]) == [-1.0]


def test_without_vader_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(MissingExtra, match=r"klaudit\[demo\]"):
        LexiconScore("trained")
