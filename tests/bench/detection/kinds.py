"""What is planted, and which rules name it rightly."""

from dataclasses import dataclass

SOON, SLOWLY = 20, 60
"""Steps after the onset within which an alarm finds a kind."""

HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of anomaly."""

    name: str
    codes: frozenset[str]
    """Rules that name it rightly."""
    horizon: int = SOON
    is_change: bool = False
    """A change of the governing series itself, and of nothing else."""


def _kind(name: str, *codes: int, horizon: int = SOON, is_change: bool = False) -> Kind:
    return Kind(name, frozenset(f"KLA{code}" for code in codes), horizon, is_change)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("spike", 201, 202, 203, 205, is_change=True),
        _kind("level", 201, 202, 203, 204, is_change=True),
        _kind("slope", 201, 203, 204, horizon=SLOWLY, is_change=True),
        _kind("burst", 201, 202, 205, is_change=True),
        _kind("freeze", 302),
        _kind("nan", 303),
        _kind("negative", 206),
        _kind("reset", 201, 203, 401),
        _kind("beta_collapse", 402, 403),
        _kind("hacking", 601, 602, horizon=SLOWLY),
        _kind("entropy", 603),
        _kind("length", 605, 606),
        _kind("gap", 304),
        _kind("clamp", 302, 305),
        _kind("penalty", 306, 402),
        _kind("budget", 101, 102),
    )
}
"""Of track A."""

CURVE_KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind("spike", 201, 202, 203, 205, is_change=True),
        _kind("level", 201, 202, 203, 204, is_change=True),
        _kind("slope", 201, 203, 204, is_change=True),
        _kind("burst", 201, 202, 205, is_change=True),
        _kind("collapse", 201, 203, 204, is_change=True),
        _kind("drop", 201, 202, 203, 204, 401, is_change=True),
        _kind("freeze", 302),
        _kind("nan", 303),
    )
}
"""Of track B, all to be found within 20 steps."""
