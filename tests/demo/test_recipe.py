from pathlib import Path
from typing import Any

import pytest

from klaudit.demo.faults import Fault
from klaudit.demo.recipe import Recipe, make_demo_recipe, read_recipe
from klaudit.errors import InvalidBudget, InvalidConfig
from klaudit.models import DEFAULT_MODEL
from klaudit.ppo.config import PPOConfig
from klaudit.records import KLBudget

DEMO: dict[str, Any] = {"steps": 40, "beta": 0.05, "adaptive": False, "seed": 0, "policy": None, "is_healthy": False}


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_a_recipe_says_what_how_and_under_which_budgets(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.toml",
        'name = "a"\npolicy = "org/model"\ndescription = "d"\n'
        "[ppo]\nmax_steps = 5\nlearning_rate_spikes = [[3, 1, 20.0]]\n"
        '[[budget]]\nlimit = 5\nunit = "nats_per_sequence"\nowner = "me"\n'
        '[[budget]]\nlimit = 0.1\nunit = "nats_per_token"\nscope = "window"\nwindow_steps = 4\non = "value"\naction = "stop"\n',
    )
    assert read_recipe(path) == Recipe(
        name="a",
        policy="org/model",
        description="d",
        ppo=PPOConfig(max_steps=5, learning_rate_spikes=((3, 1, 20.0),)),
        budgets=(
            KLBudget(5, "nats_per_sequence", owner="me"),
            KLBudget(0.1, "nats_per_token", scope="window", window_steps=4, on="value", action="stop"),
        ),
    )


def test_a_name_is_enough(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path / "a.toml", 'name = "a"\n')) == Recipe(name="a", ppo=PPOConfig(), policy=DEFAULT_MODEL)


def test_a_recipe_says_what_is_broken_and_where_texts_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'name = "a"\nstops = [".", "!"]\n[fault]\nkind = "beta_zero"\nstep = 3\n')
    assert read_recipe(path) == Recipe(name="a", ppo=PPOConfig(), stops=(".", "!"), fault=Fault("beta_zero", 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[fault]\nkind = 'beta_zero'\n", r"table \[fault\]: step missing"),
        ("[fault]\nkind = 'beta_zero'\nstep = 3\nfactor = 2\n", r"table \[fault\]: unknown key 'factor'; known are kind, step"),
        ("[fault]\nkind = 'beta_zero'\nstep = 0\n", r"table \[fault\]: step must be a whole number"),
        ("stops = '.'\n", r"expected stops to be texts of one token each, such as .*; got '\.'"),
        ("stops = ['.', 3]\n", r"expected stops to be texts of one token each, such as .*; got \['\.', 3\]"),
    ],
)
def test_a_fault_or_a_stop_that_cannot_be_is_refused(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=message):
        read_recipe(write(tmp_path / "a.toml", 'name = "a"\n' + content))


def test_an_error_names_the_file_and_the_table(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'name = "a"\n[ppo]\nbatch = 5\n')
    with pytest.raises(InvalidConfig, match=rf"{path}, table \[ppo\]: unknown PPO setting 'batch'"):
        read_recipe(path)


def test_a_budget_that_could_not_be_enforced_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'name = "a"\n[[budget]]\nlimit = 1.0\nunit = "nats_per_token"\naction = "raise_beta"\n')
    with pytest.raises(InvalidBudget, match="raise_beta"):
        read_recipe(path)


def test_the_demo_plants_one_fault_and_says_so() -> None:
    recipe = make_demo_recipe(**DEMO)
    ((step, n_steps, factor),) = recipe.ppo.learning_rate_spikes
    assert 0 < step < recipe.ppo.max_steps
    assert f"At step {step} its learning rate is multiplied by {factor:g} for three steps" in recipe.description
    assert n_steps == 3


def test_a_healthy_demo_plants_nothing() -> None:
    recipe = make_demo_recipe(**{**DEMO, "is_healthy": True})
    assert recipe.ppo.learning_rate_spikes == ()
    assert "fault" not in recipe.description


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_demo_does_what_its_options_say(adaptive: bool) -> None:
    recipe = make_demo_recipe(steps=8, beta=0.2, adaptive=adaptive, seed=7, policy="org/model", is_healthy=False)
    assert (recipe.ppo.max_steps, recipe.ppo.beta, recipe.ppo.seed, recipe.policy) == (8, 0.2, 7, "org/model")
    assert (recipe.ppo.target_kl is not None) is adaptive
    assert 8 // recipe.ppo.save_steps >= 4


@pytest.mark.parametrize("steps", [1, 2, 3, 40])
def test_a_demo_of_any_length_is_a_recipe(steps: int) -> None:
    assert make_demo_recipe(**{**DEMO, "steps": steps}).ppo.max_steps == steps
