from typing import get_args

import pytest

from klaudit.callbacks.enforcement import require_known_action
from klaudit.errors import InvalidBudget
from klaudit.records import KLBudget
from klaudit.records.budget import Action


@pytest.mark.parametrize("action", get_args(Action))
def test_an_action_is_taken_or_refused_with_the_reason(action: Action) -> None:
    budget = KLBudget(1.0, "nats_per_sequence", action=action)
    if action == "raise_beta":
        with pytest.raises(
            InvalidBudget, match=r"'raise_beta' is not there yet: .* no way to change beta .* Use alert, save_checkpoint or stop"
        ):
            require_known_action(budget)
    else:
        require_known_action(budget)
