"""What trainers print: lines amid progress bars, colours and other processes' prefixes."""

import re
from typing import Any

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]")
"""ANSI control sequences (ECMA-48) and control characters."""
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity)"
PRINTED_NUMBER = re.compile(rf"(?:np\.\w+|numpy\.\w+|tensor)\(\s*({NUMBER})\s*(?:,[^()]*)?\)|({NUMBER})")
"""A number as Python, numpy or torch prints it: `0.1`, `np.float64(0.1)`, `tensor(0.1, device='cuda:0')`."""
TEXT = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
PAIR = re.compile(rf"\s*({TEXT})\s*:\s*(None|True|False|{PRINTED_NUMBER.pattern}|{TEXT}|\[[^\[\]{{}}]*\]|\([^(){{}}]*\))\s*([,}}])")


def clean(text: str) -> str:
    """A line without colours, cursor movements and control characters."""
    return ESCAPES.sub("", text)


def read_number(text: str) -> float | None:
    """A printed number; None for anything else."""
    found = PRINTED_NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    return float(found[1] or found[2])


def read_dict(text: str, start: int) -> dict[str, Any] | None:
    """The flat dictionary that Python printed at `start`, the place of its brace; None where there is none. Nothing of it is evaluated.

    Numbers come as floats, also those that were printed as strings, as transformers 5 does (`{'loss': '0.1234'}`). None stays None, and
    everything else is text as it was printed.
    """
    values: dict[str, Any] = {}
    at = start + 1
    while (pair := PAIR.match(text, at)) is not None:
        key, printed = pair[1][1:-1], pair[2]
        unquoted = printed[1:-1] if printed[0] in "'\"" else printed
        number = read_number(unquoted)
        values[key] = None if printed == "None" else unquoted if number is None else number
        at = pair.end()
        if pair[pair.lastindex or 0] == "}":
            return values
    return None
