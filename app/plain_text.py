"""Text from outside (run names, messages, model names) on a page that reads Markdown: shown as it is, never obeyed."""

import re
from datetime import datetime

from klaudit.report.views import format_count

PUNCTUATION = re.compile(r"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~])")
"""Every character that CommonMark lets a backslash take the meaning from."""

ADDRESS = re.compile(r"(?<=http)(?=s?://)|(?<=www)(?=\.)|(?=@[-\w]+\.[-\w])", re.IGNORECASE)
"""Where GitHub's Markdown sees an address, whatever is escaped in it."""

JOINER = "\u2060"
"""Shows as nothing, and keeps an address from becoming a link."""


def plain(text: str) -> str:
    """`text` as Markdown that renders as just that text, on one line: no link, image, icon or formula comes of it."""
    return PUNCTUATION.sub(r"\\\1", ADDRESS.sub(JOINER, " ".join(text.split())))


def plain_with_code(text: str) -> str:
    """As `plain`, but what stands between two backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return plain(text)
    return "`".join(" ".join(part.split()) if at % 2 else keep_edges(part) for at, part in enumerate(parts))


def keep_edges(text: str) -> str:
    """`text` as `plain` has it, with the spaces that part it from what stands before and behind."""
    return f"{' ' if text[:1].isspace() else ''}{plain(text)}{' ' if text[-1:].isspace() else ''}"


def say_age(moment: datetime | None, *, now: datetime) -> str:
    """How long ago, in the largest whole unit: `12 s ago`."""
    if moment is None:
        return "never"
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "min")):
        if seconds >= size:
            n = seconds // size
            return f"{n} min ago" if unit == "min" else f"{format_count(n, unit)} ago"
    return f"{seconds} s ago"
