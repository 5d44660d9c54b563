import inspect
import re

import pytest

from klaudit import errors
from klaudit.errors import KlauditError, MissingExtra

LINE = re.compile(r"^(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+) +(?:exit code )?(?P<code>\d)")
INDENT = 4
"""Columns a generation of the drawn tree."""


def read_tree() -> dict[str, tuple[str | None, int]]:
    """Name -> (parent, exit code) as the module's docstring draws them."""
    tree: dict[str, tuple[str | None, int]] = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if (drawn := LINE.match(line)) is None:
            continue
        depth = len(drawn["branch"]) // INDENT
        del ancestors[depth:]
        tree[drawn["name"]] = (ancestors[-1] if ancestors else None, int(drawn["code"]))
        ancestors.append(drawn["name"])
    return tree


CLASSES = inspect.getmembers(errors, inspect.isclass)
DEFINED: dict[str, type[KlauditError]] = {name: one for name, one in CLASSES if issubclass(one, KlauditError)}


def test_the_tree_that_is_drawn_has_every_exception() -> None:
    assert set(read_tree()) == set(DEFINED)


@pytest.mark.parametrize("name", sorted(DEFINED))
def test_an_exception_has_the_parent_and_the_exit_code_that_are_drawn(name: str) -> None:
    parent, exit_code = read_tree()[name]
    own = [base.__name__ for base in DEFINED[name].__bases__ if issubclass(base, KlauditError)]
    assert own == ([] if parent is None else [parent])
    assert DEFINED[name].exit_code == exit_code


def test_a_missing_part_says_how_to_install_it() -> None:
    assert str(MissingExtra("The dashboard", "dashboard")).endswith('pip install "klaudit[dashboard]"')
