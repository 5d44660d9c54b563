"""Saved policies, and the model that KL is measured against."""

from dataclasses import dataclass
from datetime import datetime

from klaudit.errors import InvalidRecord


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """The frozen model that KL is measured against, known by its content and not only by its name.

    Raises:
        InvalidRecord: an empty name, or a digest that is not `sha256:` and 64 hex digits.
    """

    name: str
    digest: str | None = None
    """`sha256:` and 64 hex digits over the weights; None: not computed."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InvalidRecord("ReferenceModel.name must not be empty")
        require_digest("ReferenceModel", self.digest)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved policy.

    Raises:
        InvalidRecord: a negative step, an empty path, a malformed digest.
    """

    run_id: str
    step: int
    """Updates done when it was saved; the KL logged at step t belongs to the policy before update t."""
    path: str
    saved_at: datetime
    segment: int = 0
    digest: str | None = None

    def __post_init__(self) -> None:
        if self.step < 0:
            raise InvalidRecord(f"Checkpoint.step must be 0 or more; got {self.step!r}")
        if not self.path:
            raise InvalidRecord("Checkpoint.path must not be empty")
        require_digest("Checkpoint", self.digest)


def require_digest(record: str, digest: str | None) -> None:
    """Raise InvalidRecord unless `digest` is None or `sha256:` and 64 lower-case hex digits."""
    if digest is None:
        return
    scheme, _, hexadecimal = digest.partition(":")
    if scheme != "sha256" or len(hexadecimal) != 64 or set(hexadecimal) - set("0123456789abcdef"):
        raise InvalidRecord(f"{record}.digest must be 'sha256:' and 64 hex digits; got {digest!r}")
