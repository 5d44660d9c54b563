"""Files with a JSON object a line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from klaudit.exchange.lines import read_lines
from klaudit.exchange.reader import refuse, shorten


def read_objects(path: Path, *, on_progress: Callable[[int, int], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line stands, and its object.

    Raises:
        InvalidImportFile: a line that is no JSON object.
    """
    for line in read_lines(path, on_progress=on_progress):
        where = f"{path} line {line.number}"
        try:
            content = json.loads(line.text)
        except (ValueError, RecursionError) as error:
            raise refuse(where, f"expected one JSON object; {shorten(error, 200)}") from error
        if not isinstance(content, dict):
            raise refuse(where, f"expected one JSON object; got {shorten(repr(content))}")
        yield where, content
