import html.parser

import pytest

import sampled_text
from klaudit.report.views import SampleView, TokenView
from klaudit.report.views.drift_completion import CompletionView, MeasuredToken

HOSTILE = '<img src="http://203.0.113.9/y.png" onerror="alert(1)">'


class Elements(html.parser.HTMLParser):
    """Names and attributes of the elements of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


def make_sample(*tokens: TokenView, prompt: str = "Review:") -> SampleView:
    return SampleView(12, 0, 0, prompt, "", tokens, "full", 1.0, None, "step 12")


def test_hostile_tokens_and_prompts_are_shown_as_text() -> None:
    page = read(sampled_text.draw_sample(make_sample(TokenView(HOSTILE, 0.3, 1), prompt=HOSTILE)))

    assert {tag for tag, _ in page.found} == {"div", "span"}
    assert {name for _, attributes in page.found for name in attributes} <= {"class", "style", "title"}
    assert page.text.count(HOSTILE) == 2


def test_a_token_tells_its_exact_kl_with_unit_and_estimator() -> None:
    page = read(sampled_text.draw_sample(make_sample(TokenView(" film", 0.123456, 1))))

    assert page.found[-1][1]["title"] == "' film': 0.1235 nats (full)"


def test_each_level_has_a_shade_and_a_bar_of_its_own() -> None:
    assert len({sampled_text.shade(level) for level in range(5)}) == 5
    assert [f"border-bottom:{level}px" in sampled_text.shade(level) for level in range(5)] == [True] * 5


def test_the_legend_names_the_edges_of_every_level() -> None:
    legend = read(sampled_text.draw_legend("k1")).text

    assert all(edge in legend for edge in ("(k1)", "nats", "below 0.1", "0.1 or more", "0.5 or more", "1 or more", "2 or more"))


@pytest.mark.parametrize(("text", "shown"), [("a\nb", "a⏎\nb"), ("a\u202eb", "a·b"), ("a\x00b", "a·b"), ("日本\tñ", "日本\tñ")])
def test_characters_that_would_change_the_text_around_them_are_made_visible(text: str, shown: str) -> None:
    assert sampled_text.reveal(text) == shown


def make_completion(*tokens: MeasuredToken) -> CompletionView:
    return CompletionView("policy", 0, tokens, 1.0, len(tokens), "")


def test_a_hostile_token_of_a_measured_completion_is_text_and_so_is_what_is_said_of_it() -> None:
    page = read(sampled_text.draw_completion(make_completion(MeasuredToken(HOSTILE, 0.3, 1, f"{HOSTILE!r}: 0.3 nats"))))

    assert [tag for tag, _ in page.found] == ["div", "span"]
    assert set(page.found[1][1]) == {"data-told", "style"}
    assert page.found[1][1]["data-told"] == f"{HOSTILE!r}: 0.3 nats"
    assert page.text == HOSTILE


@pytest.mark.parametrize(("text", "shown"), [("  ", "␣␣"), (" film", " film"), ("\t", "⇥\t"), ("\n\n", "⏎\n⏎\n"), ("", "")])
def test_spaces_of_a_measured_completion_are_seen(text: str, shown: str) -> None:
    assert read(sampled_text.draw_completion(make_completion(MeasuredToken(text, 0.0, 0, "")))).text == shown


def test_a_hostile_prompt_is_text() -> None:
    page = read(sampled_text.draw_prompt(f"{HOSTILE}\nnext"))

    assert [tag for tag, _ in page.found] == ["div"]
    assert page.text == f"{HOSTILE}⏎\nnext"
