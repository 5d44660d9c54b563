"""Steps that nobody has any more."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loss:
    """Steps whose `log()` returned and that are nowhere."""

    n: int = 0
    first_step: int | None = None
    last_step: int | None = None

    def add(self, step: int) -> "Loss":
        """The loss with one more step."""
        return Loss(self.n + 1, step if self.first_step is None else min(self.first_step, step), max(step, self.last_step or 0))
