from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

import plain_text

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["![x](http://203.0.113.9/x.png)", ":material/error:", "$x^2$", "**bold**", "<b>", "a_b_c", "# head", ":red[x]"]
)
def test_nothing_of_markdown_is_left_unescaped(text: str) -> None:
    rest = plain_text.plain(text).replace("\\\\", "")

    assert all(rest[i - 1] == "\\" for i, one in enumerate(rest) if one in "![](){}:$*_<>#`|~/.")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://a.example/x", r"http⁠\:\/\/a\.example\/x"),
        ("HTTPS://a.example", r"HTTP⁠S\:\/\/a\.example"),
        ("www.example.com", r"www⁠\.example\.com"),
        ("git@host.example:team", r"git⁠\@host\.example\:team"),
        ("over http and www", "over http and www"),
        ("ppo@v2", r"ppo\@v2"),
    ],
)
def test_an_address_does_not_become_a_link(text: str, shown: str) -> None:
    assert plain_text.plain(text) == shown


@given(some.text(alphabet=some.characters(codec="ascii", exclude_categories=["Cc"])))
def test_taking_the_backslashes_away_gives_the_text_back(text: str) -> None:
    escaped = iter(plain_text.plain(text).replace(plain_text.JOINER, ""))

    assert "".join(next(escaped) if one == "\\" else one for one in escaped) == " ".join(text.split())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "3 s ago"), (61, "1 min ago"), (3_600, "1 hour ago"), (7_300, "2 hours ago"), (90_000, "1 day ago"), (-5, "0 s ago")],
)
def test_an_age_is_said_in_its_largest_whole_unit(seconds: int, said: str) -> None:
    assert plain_text.say_age(NOW - timedelta(seconds=seconds), now=NOW) == said


def test_what_never_happened_has_no_age() -> None:
    assert plain_text.say_age(None, now=NOW) == "never"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("raise beta; `klaudit frontier` says **where**", r"raise beta\; `klaudit frontier` says \*\*where\*\*"),
        ("(`a_b` proposes)", r"\(`a_b` proposes\)"),
        ("a lone ` is text: **x**", r"a lone \` is text\: \*\*x\*\*"),
    ],
)
def test_what_stands_between_backticks_is_code_and_the_rest_is_text(text: str, shown: str) -> None:
    assert plain_text.plain_with_code(text) == shown
