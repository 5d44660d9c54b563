"""The recorded sweep over beta: one run but for beta, from a policy that hardly moves to one that is over-optimised."""

from dataclasses import asdict
from statistics import fmean

from klaudit.assets import locate_asset
from klaudit.demo.recipe import read_recipe
from klaudit.exchange.steps_file import read_steps_file
from klaudit.records import StepRecord

SWEEP = locate_asset("sample_runs") / "sweep"
DIRECTORIES = sorted((path.parent for path in SWEEP.glob("*/config.toml")), key=lambda one: read_recipe(one / "config.toml").ppo.beta)
N_LAST = 5


def read_last(measure: str) -> list[float]:
    """Mean over the last steps of each run, smallest beta first."""

    def read(step: StepRecord) -> float:
        number = {"kl": step.kl.value, "score": step.score, **step.metrics}[measure]
        assert number is not None
        return number

    return [fmean(read(step) for step in read_steps_file(one / "steps.jsonl").steps[-N_LAST:]) for one in DIRECTORIES]


def test_the_runs_differ_in_beta_alone() -> None:
    recipes = [read_recipe(one / "config.toml") for one in DIRECTORIES]
    assert len({recipe.ppo.beta for recipe in recipes}) == len(recipes) >= 5
    assert all(recipe.fault is None for recipe in recipes)
    first = recipes[0]
    for recipe in recipes:
        assert {**asdict(recipe.ppo), "beta": first.ppo.beta} == asdict(first.ppo)


def test_each_run_is_that_of_its_config_and_logs_what_a_frontier_needs() -> None:
    for directory in DIRECTORIES:
        recipe, recorded = read_recipe(directory / "config.toml"), read_steps_file(directory / "steps.jsonl")
        assert recorded.run.name == recipe.name
        assert recorded.run.config["beta"] == recipe.ppo.beta
        assert recorded.run.config["seed"] == recipe.ppo.seed
        assert [step.step for step in recorded.steps] == list(range(1, recipe.ppo.max_steps + 1))
        assert {step.beta for step in recorded.steps} == {recipe.ppo.beta}
        for step in recorded.steps:
            assert step.kl.value is not None
            assert step.kl.standard_error is not None
            assert step.score is not None
            assert {"heldout_score", "entropy", "response_length", "distinct_2"} <= step.metrics.keys()
            assert {"kl_k1", "kl_update"} <= step.readings.keys()
        assert (directory / "steps.jsonl").stat().st_size < 100_000


def test_a_smaller_beta_ends_farther_from_the_reference() -> None:
    kl = read_last("kl")
    assert kl == sorted(kl, reverse=True)
    assert kl[0] > 5 * kl[-1]
