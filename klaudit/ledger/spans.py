"""Step numbers as few ranges, because steps are evenly spaced nearly always."""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from klaudit.errors import InvalidRecord


def span_steps(steps: Iterable[int]) -> list[range]:
    """Rising steps as ranges, such as 1, 2, 3, 7, 9 as `range(1, 4)` and `range(7, 10, 2)`."""
    spans: list[range] = []
    extend_spans(spans, steps)
    return spans


def extend_spans(spans: list[range], steps: Iterable[int]) -> None:
    """Add steps behind those that are there, lengthening the last range where it goes on."""
    for step in steps:
        last = spans[-1] if spans else None
        if last is not None and len(last) == 1 and step > last[0]:
            spans[-1] = range(last[0], step + 1, step - last[0])
        elif last is not None and step == last[-1] + last.step:
            spans[-1] = range(last[0], step + 1, last.step)
        else:
            spans.append(range(step, step + 1))


def find_outside(steps: Iterable[int], spans: Sequence[range]) -> Iterator[int]:
    """Those of the rising `steps` that no range holds."""
    covered = heapq.merge(*spans)
    next_covered = next(covered, None)
    for step in steps:
        while next_covered is not None and next_covered < step:
            next_covered = next(covered, None)
        if next_covered != step:
            yield step


def encode_spans(spans: Sequence[range]) -> list[list[int]]:
    """Ranges as JSON: first step, last step and spacing of each."""
    return [[one[0], one[-1], one.step] for one in spans]


def decode_spans(encoded: Sequence[Sequence[int]]) -> list[range]:
    """The other way.

    Raises:
        InvalidRecord: not what `encode_spans` gives.
    """
    try:
        return [range(first, last + 1, every) for first, last, every in encoded]
    except (TypeError, ValueError) as exc:
        raise InvalidRecord(f"expected [first step, last step, spacing] of each range; got {encoded!r}") from exc


def describe_spans(spans: Sequence[range]) -> str:
    """For people: `step 3`, `steps 1 to 9`, `13 steps between 1 and 90`."""
    n_steps = sum(map(len, spans))
    first, last = min(one[0] for one in spans), max(one[-1] for one in spans)
    if n_steps == 1:
        return f"step {first}"
    return f"steps {first} to {last}" if n_steps == last - first + 1 else f"{n_steps} steps between {first} and {last}"
