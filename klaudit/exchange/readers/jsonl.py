"""JSON lines of any loop: an object a step, whatever its keys are called."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from klaudit.exchange.interpretation import interpret
from klaudit.exchange.json_lines import read_objects
from klaudit.exchange.places import Places, drop_missing, find_places
from klaudit.exchange.reader import FileHead, ImportedRun, LoggedValues, ReadOptions

DEEPEST = 8
"""Objects inside objects whose numbers are taken, under `outer/inner`."""


class JSONL:
    """Reads what a loop of one's own logged."""

    name = "jsonl"
    describes = "JSON lines, an object a step"

    def recognises(self, head: FileHead) -> bool:
        """By a first line that is a JSON object."""
        first, end, _ = head.text.lstrip().partition("\n")
        if not end and not head.is_whole:
            return first.startswith('{"')
        try:
            return first.startswith("{") and isinstance(json.loads(first), dict)
        except (ValueError, RecursionError):
            return False

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the file."""
        yield interpret(_read_logged(path, options), path=path, options=options)


def _read_logged(path: Path, options: ReadOptions) -> Iterator[LoggedValues]:
    places: Places | None = None
    for where, content in read_objects(path, on_progress=options.on_progress):
        values = drop_missing(flatten(content))
        if places is None:
            places = find_places(values, options, where)
        yield places.take(values, where)


def flatten(content: Mapping[str, Any], prefix: str = "", depth: int = 1) -> dict[str, Any]:
    """An object whose values are no objects: `{"a": {"b": 1}}` is `{"a/b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and depth < DEEPEST:
            flat |= flatten(value, f"{prefix}{key}/", depth + 1)
        else:
            flat[prefix + key] = value
    return flat
