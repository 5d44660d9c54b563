"""Whether something is so again and again, and not once."""

from collections.abc import Mapping
from typing import Any

from klaudit.errors import InvalidRecord


class Persistence:
    """Counts on how many of the last `of` occasions something was so; constant time an occasion. State is JSON."""

    def __init__(self, needed: int, *, of: int) -> None:
        if not 1 <= needed <= of:
            raise InvalidRecord(f"Persistence needs 1 <= needed <= of; got needed={needed!r}, of={of!r}")
        self.needed = needed
        self.of = of
        self._bits = 0

    def observe(self, is_so: bool) -> bool:
        """Take in the next occasion; whether it was so on at least `needed` of the last `of`, this one included."""
        self._bits = (self._bits << 1 | is_so) & ((1 << self.of) - 1)
        return self._bits.bit_count() >= self.needed

    def clear(self) -> None:
        """Forget every occasion."""
        self._bits = 0

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"bits": self._bits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._bits = int(state["bits"])
