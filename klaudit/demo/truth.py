"""What an audit of a run must find, derived from the run's recipe before the run is audited."""

from typing import Any

from klaudit.demo.faults import FAULT_KINDS
from klaudit.demo.recipe import Recipe

WITHIN_STEPS = 3
BETA_NEAR_ZERO = 1e-3
"""Below it the KL penalty of a score between -1 and 1 is no anchor."""


def derive_truth(recipe: Recipe) -> dict[str, Any]:
    """The planted causes of a recipe.

    A learning rate that is wrong at update s shows first in the KL logged at step s + 1, because rollouts precede updates. A run whose
    beta is near zero has no fixed step at which it leaves its budget: the truth is the first step whose recorded KL is over the limit.
    A planted `fault` is found where a finding has one of its `codes`.
    """
    planted: list[dict[str, Any]] = [
        {
            "cause": f"learning rate x{factor:g} for {n_steps} steps",
            "code": "KLA201",
            "onset": {"step": first_step},
            "within_steps": WITHIN_STEPS,
        }
        for first_step, n_steps, factor in recipe.ppo.learning_rate_spikes
    ]
    if recipe.ppo.beta < BETA_NEAR_ZERO and recipe.ppo.target_kl is None:
        planted += [
            {
                "cause": f"beta {recipe.ppo.beta:g}",
                "code": "KLA101",
                "onset": {"first_kl_over": budget.limit, "unit": budget.unit},
                "within_steps": WITHIN_STEPS,
            }
            for budget in recipe.budgets
            if budget.scope == "per_step"
        ]
    if recipe.fault is not None:
        kind = FAULT_KINDS[recipe.fault.kind]
        planted.append(
            {
                "cause": kind.cause,
                "codes": list(kind.codes),
                "onset": {"step": recipe.fault.step},
                "within_steps": kind.within_steps,
            }
        )
    return {"schema_version": 1, "run": recipe.name, "is_healthy": not planted, "planted": planted}
