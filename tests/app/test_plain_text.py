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


@given(some.text(alphabet=some.characters(codec="ascii", exclude_categories=["Cc"])))
def test_taking_the_backslashes_away_gives_the_text_back(text: str) -> None:
    escaped = iter(plain_text.plain(text))

    assert "".join(next(escaped) if one == "\\" else one for one in escaped) == " ".join(text.split())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3, "3 s ago"), (61, "1 min ago"), (3_600, "1 hour ago"), (7_300, "2 hours ago"), (90_000, "1 day ago"), (-5, "0 s ago")],
)
def test_an_age_is_said_in_its_largest_whole_unit(seconds: int, said: str) -> None:
    assert plain_text.say_age(NOW - timedelta(seconds=seconds), now=NOW) == said


def test_what_never_happened_has_no_age() -> None:
    assert plain_text.say_age(None, now=NOW) == "never"


@pytest.mark.parametrize(("silent_s", "stalled"), [(30, False), (119, False), (121, True)])
def test_a_run_is_stalled_after_ten_of_its_own_steps(silent_s: int, stalled: bool) -> None:
    started = NOW - timedelta(seconds=120 + silent_s)

    found = plain_text.is_stalled(started_at=started, last_logged_at=started + timedelta(seconds=120), n_steps=10, now=NOW)

    assert found is stalled


@pytest.mark.parametrize(("silent_s", "stalled"), [(59, False), (61, True)])
def test_a_fast_run_is_given_a_minute(silent_s: int, stalled: bool) -> None:
    last = NOW - timedelta(seconds=silent_s)

    assert plain_text.is_stalled(started_at=last - timedelta(seconds=1), last_logged_at=last, n_steps=100, now=NOW) is stalled
