import pytest

from klaudit.drift.matrix import plan_matrix
from klaudit.drift.plan import MeasurementSettings, ModelIdentity
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig

PROMPTS = PromptSet("two", ("a", "b"))


def identify(name: str, digit: str) -> ModelIdentity:
    return ModelIdentity(name, f"sha256:{digit * 64}", f"sha256:{'0' * 64}")


def test_each_checkpoint_samples_and_each_other_one_scores() -> None:
    checkpoints = [identify("x", "1"), identify("y", "2"), identify("z", "3")]
    tasks = plan_matrix(checkpoints, prompts=PROMPTS, settings=MeasurementSettings())
    assert [(task.checkpoint.name, task.reference.name) for task in tasks] == [
        ("x", "y"), ("x", "z"), ("y", "x"), ("y", "z"), ("z", "x"), ("z", "y")
    ]  # fmt: skip
    assert {task.sampler for task in tasks} == {"policy"}


def test_same_weights_under_two_names_are_one_checkpoint() -> None:
    twice = [identify("x", "1"), identify("copy of x", "1"), identify("y", "2")]
    assert len(plan_matrix(twice, prompts=PROMPTS, settings=MeasurementSettings())) == 2
    with pytest.raises(InvalidConfig, match="got 2, of which 1 differ"):
        plan_matrix(twice[:2], prompts=PROMPTS, settings=MeasurementSettings())
