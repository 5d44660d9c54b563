"""Sampled text as HTML, each token shaded by its KL: pure, and inert whatever the tokens say."""

import html
import unicodedata

from klaudit.report.views import SampleView, TokenView, format_number
from klaudit.report.views.drift_completion import CompletionView, MeasuredToken
from klaudit.report.views.sample import LEVELS

SHADES = ("transparent", "rgba(217,120,20,.16)", "rgba(217,120,20,.34)", "rgba(212,84,42,.52)", "rgba(212,60,30,.74)")
"""One warm ramp that darkens a light page and lights up a dark one; the bar below a token grows with it, for those who do not see colour."""

TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:2;font-size:.95rem"

TOLD = f"""<style>
.klaudit-completion {{ position:relative; padding-bottom:4.2em; {TEXT} }}
.klaudit-completion > span[data-told]:hover {{ outline:1px solid currentColor }}
.klaudit-completion::after, .klaudit-completion > span[data-told]:hover::after {{
  position:absolute; left:0; right:0; bottom:0; height:3.9em; overflow:hidden; font-size:.8rem; line-height:1.3; white-space:normal }}
.klaudit-completion::after {{ content:"Point at a token: its KL, both probabilities, what contributes most."; opacity:.6 }}
.klaudit-completion:has(> span[data-told]:hover)::after {{ content:"" }}
.klaudit-completion > span[data-told]:hover::after {{ content:attr(data-told) }}
</style>"""
"""What is said of the token that is pointed at stands below the text, at once, and covers nothing."""


def draw_completion(completion: CompletionView) -> str:
    """A completion token by token; needs `TOLD` on the page."""
    return f'<div class="klaudit-completion">{"".join(draw_measured_token(one) for one in completion.tokens)}</div>'


def draw_measured_token(token: MeasuredToken) -> str:
    """One token with what is said of it."""
    told = html.escape(reveal(token.told), quote=True)
    return f'<span data-told="{told}" style="{shade(token.level)}">{html.escape(reveal_spaces(token.text))}</span>'


def draw_prompt(prompt: str) -> str:
    """A prompt as it is, set apart from completions."""
    return f'<div style="{TEXT};line-height:1.5;opacity:.75">{html.escape(reveal(prompt))}</div>'


def draw_sample(sample: SampleView) -> str:
    """Prompt, then the completion token by token."""
    prompt = f'<span style="opacity:.6">{html.escape(reveal(sample.prompt))}</span>'
    tokens = "".join(draw_token(one, sample.estimator) for one in sample.tokens)
    return f'<div class="klaudit-sample" style="{TEXT}">{prompt}{tokens}</div>'


def draw_token(token: TokenView, estimator: str) -> str:
    """One token with its exact KL as a tooltip."""
    title = html.escape(f"{token.text!r}: {format_number(token.kl)} nats ({estimator})", quote=True)
    return f'<span title="{title}" style="{shade(token.level)}">{html.escape(reveal(token.text))}</span>'


def draw_legend(estimator: str) -> str:
    """What the shades mean."""
    edges = ["below " + format_number(LEVELS[0]), *(f"{format_number(one)} or more" for one in LEVELS)]
    chips = "".join(f'<span style="{shade(level)};padding:0 .5em;margin-right:.6em">{edge}</span>' for level, edge in enumerate(edges))
    return f'<div style="font-size:.85rem;line-height:2"><span style="opacity:.7">KL per token, nats ({html.escape(estimator)}): </span>{chips}</div>'


def shade(level: int) -> str:
    """Style of a token of that level: colour and bar."""
    return f"background:{SHADES[level]};border-bottom:{level}px solid rgba(190,60,20,.9);border-radius:3px;unicode-bidi:isolate"


def reveal(text: str) -> str:
    """Line ends and control characters made visible; a line end still ends the line."""
    return "".join("⏎\n" if one == "\n" else "·" if is_control(one) else one for one in text)


def reveal_spaces(text: str) -> str:
    """As `reveal`, and a token of nothing but spaces is seen."""
    return "␣" * len(text) if text and not text.strip(" ") else reveal(text).replace("\t", "⇥\t")


def is_control(character: str) -> bool:
    """Whether it would change how the text around it is shown instead of showing itself."""
    return unicodedata.category(character) in {"Cc", "Cf"} and character not in "\t\u200d"
