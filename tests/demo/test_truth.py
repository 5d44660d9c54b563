from typing import Any

from klaudit.demo.faults import FAULT_KINDS, Fault
from klaudit.demo.recipe import Recipe
from klaudit.demo.truth import derive_truth
from klaudit.ppo.config import PPOConfig
from klaudit.records import KLBudget

BUDGET = KLBudget(5.0, "nats_per_sequence")


def derive(*, budgets: tuple[KLBudget, ...] = (BUDGET,), **settings: Any) -> dict[str, Any]:
    return derive_truth(Recipe("a", PPOConfig(**settings), budgets=budgets))


def test_a_recipe_without_a_fault_is_healthy() -> None:
    assert derive(beta=0.1) == {"schema_version": 1, "run": "a", "is_healthy": True, "planted": []}


def test_a_learning_rate_that_jumps_is_a_jump_of_the_kl_within_three_steps() -> None:
    truth = derive(beta=0.1, learning_rate_spikes=((36, 3, 20.0),))
    assert truth["planted"] == [{"cause": "learning rate x20 for 3 steps", "code": "KLA201", "onset": {"step": 36}, "within_steps": 3}]
    assert truth["is_healthy"] is False


def test_a_beta_next_to_nothing_breaks_every_budget_of_a_step() -> None:
    window = KLBudget(1.0, "nats_per_token", scope="window", window_steps=5)
    truth = derive(beta=1e-4, budgets=(BUDGET, window))
    assert truth["planted"] == [
        {"cause": "beta 0.0001", "code": "KLA101", "onset": {"first_kl_over": 5.0, "unit": "nats_per_sequence"}, "within_steps": 3}
    ]


def test_a_small_beta_that_a_controller_may_raise_is_no_fault() -> None:
    assert derive(beta=1e-4, target_kl=2.0)["is_healthy"]


def test_a_planted_fault_is_named_by_one_of_its_rules_in_its_time() -> None:
    truth = derive_truth(Recipe("a", PPOConfig(), fault=Fault("sampling_top_k", 21)))
    kind = FAULT_KINDS["sampling_top_k"]
    assert truth["planted"] == [{"cause": kind.cause, "codes": list(kind.codes), "onset": {"step": 21}, "within_steps": kind.within_steps}]
    assert truth["is_healthy"] is False
