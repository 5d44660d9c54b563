"""Who is told what goes wrong while a run is recorded."""

from typing import Protocol


class Reporter(Protocol):
    """Who is told what goes wrong."""

    def note(self, what: str, error: Exception) -> None:
        """Something inside klaudit failed."""

    def warn(self, line: str) -> None:
        """Something that a person should know."""


class Silence:
    """Tells nobody."""

    def note(self, what: str, error: Exception) -> None:
        """See Reporter."""

    def warn(self, line: str) -> None:
        """See Reporter."""
