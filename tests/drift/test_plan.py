import json
import pickle
from dataclasses import asdict, replace
from typing import Any

import pytest

from klaudit.drift.plan import MeasurementSettings, ModelIdentity, ShardTask, describe_settings, plan_shards
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig

POLICY, REFERENCE = (ModelIdentity(name, f"sha256:{digit * 64}", f"sha256:{'0' * 64}") for name, digit in (("p", "1"), ("r", "2")))
PROMPTS = PromptSet("tiny", ("a", "b", "a", "c", "d"), slices=("x", None, "x", "y", None), weights=(1.0, 2.0, 1.0, 1.0, 1.0))
SETTINGS = MeasurementSettings(shard_prompts=2, samples_per_prompt=3)


def plan(**changes: Any) -> tuple[ShardTask, ...]:
    return plan_shards(POLICY, REFERENCE, prompts=PROMPTS, settings=replace(SETTINGS, **changes))


def test_every_prompt_is_in_one_shard_of_each_sampler() -> None:
    tasks = plan()
    for sampler in ("policy", "reference"):
        listed = [prompt for task in tasks if task.sampler == sampler for prompt in task.prompts]
        assert [(one.index, one.text, one.slice, one.weight) for one in listed] == [
            (0, "a", "x", 1), (1, "b", None, 2), (2, "a", "x", 1), (3, "c", "y", 1), (4, "d", None, 1)
        ]  # fmt: skip
    assert [task.n_sequences for task in tasks] == [6, 6, 3] * 2
    assert {task.sampler for task in plan(forward=False)} == {"policy"}


def test_repeated_prompt_is_told_apart_by_its_occurrence() -> None:
    assert [prompt.occurrence for task in plan(forward=False) for prompt in task.prompts] == [0, 0, 1, 0, 0]


def test_task_travels_as_pickle_and_is_plain_json() -> None:
    task = plan()[0]
    assert pickle.loads(pickle.dumps(task)) == task
    assert json.loads(json.dumps(asdict(task)))["prompts"][1]["text"] == "b"


def test_key_is_of_content_and_not_of_names_or_of_how_it_is_computed() -> None:
    task = plan()[0]
    assert replace(task, checkpoint=replace(POLICY, name="elsewhere")).key == task.key
    assert (
        replace(task, settings=replace(task.settings, batch_size=7, shard_prompts=9, samples_per_prompt=8, forward=False)).key == task.key
    )


def test_keys_of_float32_are_those_from_before_there_were_other_types() -> None:
    assert plan()[0].key == "sha256:3ef725a610d2002fbff691d06cb275bd0774929f123a5d1b3052e69a9b0f9743"


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": REFERENCE},
        {"reference": POLICY},
        {"checkpoint": replace(POLICY, setup_digest=f"sha256:{'f' * 64}")},
        {"samples": (3, 6)},
        {"sampler": "reference"},
        {"prompts": plan()[1].prompts},
        {"settings": replace(SETTINGS, seed=1)},
        {"settings": replace(SETTINGS, temperature=0.7)},
        {"settings": replace(SETTINGS, dtype="bfloat16")},
        {"settings": replace(SETTINGS, max_new_tokens=17)},
        {"settings": replace(SETTINGS, n_top=0)},
    ],
)
def test_key_changes_with_all_that_decides_the_numbers(changes: dict[str, Any]) -> None:
    task = plan()[0]
    assert replace(task, **changes).key != task.key


def test_more_samples_are_other_shards_beside_the_first_ones() -> None:
    first, more = plan(), plan_shards(POLICY, REFERENCE, prompts=PROMPTS, settings=SETTINGS, samples=(3, 9))
    assert not {task.key for task in first} & {task.key for task in more}
    assert [task.n_sequences for task in more] == [12, 12, 6] * 2


def test_plans_without_an_interval_or_without_samples_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="at least 2 different"):
        plan_shards(POLICY, REFERENCE, prompts=PromptSet("same", ("a", "a")), settings=SETTINGS)
    with pytest.raises(InvalidConfig, match=r"got \(3, 3\)"):
        plan_shards(POLICY, REFERENCE, prompts=PROMPTS, settings=SETTINGS, samples=(3, 3))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("samples_per_prompt", 0),
        ("batch_size", 0),
        ("n_top", -1),
        ("dtype", "int8"),
        ("temperature", float("inf")),
        ("seed", 2**53),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidConfig, match=rf"MeasurementSettings.{field} must be .*; got"):
        replace(SETTINGS, **{field: value})


def test_settings_are_described_as_json() -> None:
    described = describe_settings(PROMPTS, SETTINGS)
    assert described["dtype"] == "float32"
    assert described["prompt_set_digest"] == PROMPTS.digest
    assert (described["n_prompts"], described["samples_per_prompt"], described["seed"]) == (5, 3, 0)
    assert json.loads(json.dumps(described)) == described
