from typing import Any

import pytest

from klaudit.demo.faults import FAULT_KINDS, Fault
from klaudit.errors import InvalidConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "typo", "step": 3}, "kind must be one of learning_rate, beta_zero, .*; got 'typo'"),
        ({"kind": "beta_zero", "step": 0}, "step must be a whole number, 1 or more; got 0"),
        ({"kind": "beta_zero", "step": 2.0}, "step must be a whole number, 1 or more; got 2.0"),
        ({"kind": "beta_zero", "step": True}, "step must be a whole number, 1 or more; got True"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        Fault(**given)


def test_every_kind_names_its_rules_and_its_time() -> None:
    for kind in FAULT_KINDS.values():
        assert kind.codes
        assert all(code.startswith("KLA") and code[3:].isdigit() for code in kind.codes)
        assert kind.within_steps >= 1
