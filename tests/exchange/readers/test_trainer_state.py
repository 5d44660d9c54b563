import json
import math
from pathlib import Path
from typing import Any

import pytest

from klaudit.errors import InvalidImportFile
from tests.exchange.readers.reading import describe, read_one, write

# Entries 1 to 3 and 250 of IMJONEZZ/UnslothGRPO, outputs/checkpoint-250/trainer_state.json at d466910 (MIT).
UNSLOTH = """\
{
  "best_metric": null,
  "best_model_checkpoint": null,
  "epoch": 0.03345376689415228,
  "eval_steps": 500,
  "global_step": 250,
  "is_hyper_param_search": false,
  "is_local_process_zero": true,
  "is_world_process_zero": true,
  "log_history": [
    {
      "completion_length": 200.0,
      "epoch": 0.00013381506757660912,
      "grad_norm": 0.0,
      "kl": 0.0,
      "learning_rate": 2.0000000000000002e-07,
      "loss": 0.0,
      "reward": 0.0,
      "reward_std": 0.0,
      "rewards/correctness_reward_func": 0.0,
      "rewards/xmlcount_reward_func": 0.0,
      "step": 1
    },
    {
      "completion_length": 168.6666717529297,
      "epoch": 0.00026763013515321824,
      "grad_norm": 0.6520445942878723,
      "kl": 0.0,
      "learning_rate": 4.0000000000000003e-07,
      "loss": -0.0,
      "reward": -0.046833336353302,
      "reward_std": 0.1817607581615448,
      "rewards/correctness_reward_func": 0.0,
      "rewards/xmlcount_reward_func": -0.046833336353302,
      "step": 2
    },
    {
      "completion_length": 128.1666717529297,
      "epoch": 0.0004014452027298274,
      "grad_norm": 0.7553274631500244,
      "kl": 0.00023205635079648346,
      "learning_rate": 6.000000000000001e-07,
      "loss": 0.0,
      "reward": 0.7700001001358032,
      "reward_std": 1.30967378616333,
      "rewards/correctness_reward_func": 0.6666666865348816,
      "rewards/xmlcount_reward_func": -0.06333333253860474,
      "step": 3
    }
  ],
  "logging_steps": 1,
  "max_steps": 250,
  "num_input_tokens_seen": 0,
  "num_train_epochs": 1,
  "save_steps": 250,
  "stateful_callbacks": {"TrainerControl": {"args": {"should_save": true}, "attributes": {}}},
  "total_flos": 0.0,
  "train_batch_size": 1,
  "trial_name": null,
  "trial_params": null
}
"""


def test_an_unsloth_state_has_its_kl_as_k3_per_token(tmp_path: Path) -> None:
    read = read_one(write(tmp_path / "unsloth.trainer_state.json", UNSLOTH))
    assert (read.format_name, read.run.name, read.run.algorithm) == ("trainer-state", "unsloth", "grpo")
    assert describe(read.run.series) == {"kl": ("reference", "k3", "nats_per_token")}
    assert read.run.series["kl"].aggregation == "token_mean"
    assert (read.run.planned_steps, read.run.config["logging_steps"], read.run.status) == (250, 1, "finished")
    assert read.places == [(0, 1), (0, 2), (0, 3)]
    assert read.kls == [0.0, 0.0, 0.00023205635079648346]
    last = read.steps[-1]
    assert (last.score, last.kl.mean_length, last.metrics["response_length"]) == (0.7700001001358032, 128.1666717529297, 128.1666717529297)
    assert last.metrics["rewards/xmlcount_reward_func"] == -0.06333333253860474
    assert "epoch" not in last.metrics


def test_what_stands_behind_the_steps_is_known_before_them(tmp_path: Path) -> None:
    state = json.loads(UNSLOTH)
    reordered = {"log_history": state.pop("log_history"), **state}
    read = read_one(write(tmp_path / "trainer_state.json", json.dumps(reordered)))
    assert read.run.planned_steps == 250
    assert len(read.steps) == 3


def test_a_state_in_a_checkpoint_is_called_as_the_directory_of_the_run(tmp_path: Path) -> None:
    directory = tmp_path / "my-run" / "checkpoint-250"
    directory.mkdir(parents=True)
    assert read_one(write(directory / "trainer_state.json", UNSLOTH)).run.name == "my-run"


def test_a_bare_log_history_is_a_run(tmp_path: Path) -> None:
    history = json.loads(UNSLOTH)["log_history"]
    read = read_one(write(tmp_path / "trajectory.json", json.dumps(history)))
    assert (read.format_name, read.run.name) == ("trainer-state", "trajectory")
    assert read.places == [(0, 1), (0, 2), (0, 3)]
    assert read.run.series["kl"].estimator == "k3"


def test_trl_ppo_is_known_by_its_keys(tmp_path: Path) -> None:
    # The keys of TRL 1.12.0 trl/experimental/ppo/ppo_trainer.py lines 880-908.
    entry = {
        "eps": 1, "objective/kl": 0.4, "objective/entropy": 30.0, "objective/non_score_reward": -0.02, "objective/rlhf_reward": 0.48,
        "objective/scores": 0.5, "policy/approxkl_avg": 0.01, "policy/clipfrac_avg": 0.1, "loss/policy_avg": 0.1, "loss/value_avg": 0.2,
        "val/clipfrac_avg": 0.0, "policy/entropy_avg": 1.5, "val/ratio": 1.0, "val/ratio_var": 0.0, "val/num_eos_tokens": 3, "lr": 1e-6,
        "episode": 8, "epoch": 0.1, "step": 1,
    }  # fmt: skip
    read = read_one(write(tmp_path / "ppo.json", json.dumps([entry, {**entry, "step": 2, "objective/kl": -0.1}])))
    assert (read.run.framework, read.run.algorithm) == ("trl", "ppo")
    assert describe(read.run.series)["kl"] == ("reference", "k1", "nats_per_sequence")
    assert describe(read.run.series)["kl_update"] == ("update", "k2", "nats_per_token")
    assert read.kls == [0.4, -0.1]


GRPO = {"completion_length": 20.0, "reward_std": 0.1, "reward": 0.5, "kl": 0.1, "loss": 0.1, "epoch": 0.1}


def test_an_evaluation_belongs_to_the_step_that_it_followed_and_one_between_steps_is_counted(tmp_path: Path) -> None:
    history = [
        {**GRPO, "step": 10},
        {"eval_loss": 0.3, "eval_runtime": 1.0, "epoch": 0.1, "step": 10},
        {"eval_loss": 0.2, "eval_runtime": 1.1, "epoch": 0.2, "step": 15},
        {**GRPO, "epoch": 0.3, "step": 20},
        {"eval_loss": 0.1, "eval_runtime": 1.2, "epoch": 0.3, "step": 20},
        {"train_runtime": 9.0, "train_loss": 0.1, "epoch": 0.3, "step": 20},
        # Evaluated again when training was over.
        {"eval_loss": 0.09, "eval_runtime": 1.3, "epoch": 0.3, "step": 20},
    ]
    read = read_one(write(tmp_path / "history.json", json.dumps(history)))
    assert read.places == [(0, 10), (0, 20)]
    assert [step.metrics["eval_loss"] for step in read.steps] == [0.3, 0.09]
    assert any("1 entries of evaluations" in note for note in read.notes)


def test_a_step_that_goes_back_begins_a_segment(tmp_path: Path) -> None:
    history = [{**GRPO, "kl": step / 10, "step": step} for step in (1, 2, 3, 2, 3, 4, 4)]
    read = read_one(write(tmp_path / "history.json", json.dumps(history)))
    assert read.places == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (1, 4)]


def test_one_step_with_two_values_of_one_key_is_named(tmp_path: Path) -> None:
    history = [{**GRPO, "step": 1}, {**GRPO, "kl": 0.2, "step": 1}]
    path = write(tmp_path / "history.json", json.dumps(history, indent=1))
    with pytest.raises(InvalidImportFile, match=r"history.json line 11, field 'kl': expected one value a step; step 1 has 0.1 and 0.2"):
        read_one(path)


def test_python_writes_nan_and_infinities_as_bare_words_and_they_are_kept(tmp_path: Path) -> None:
    history = [{**GRPO, "kl": value, "step": step} for step, value in enumerate([math.nan, math.inf, -math.inf, None], start=1)]
    read = read_one(write(tmp_path / "history.json", json.dumps(history)))
    assert [repr(value) for value in read.kls] == ["nan", "inf", "-inf", "nan"]


def test_bytes_done_reach_bytes_in_all(tmp_path: Path) -> None:
    path, seen = write(tmp_path / "trainer_state.json", UNSLOTH), []
    read_one(path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


BAD: dict[str, tuple[Any, str]] = {
    "cut off inside a number": (UNSLOTH[: UNSLOTH.index("128.16") + 4], "line 37: expected a JSON value; the file ends inside it"),
    "cut off inside a key": (UNSLOTH[: UNSLOTH.index("completion_length") + 4], "line 11: expected a JSON value; the file ends inside it"),
    "cut off between entries": (UNSLOTH[: UNSLOTH.index("    {\n")], "the file ends"),
    "more behind the end": (UNSLOTH + "]", "expected the end of the file; got ']'"),
    "a history that is text": (json.dumps({"log_history": "lost", "global_step": 1, "is_world_process_zero": True}), "field 'log_history'"),
    "no history": (json.dumps({"global_step": 1, "is_world_process_zero": True}), "expected a list of what the trainer logged"),
    "an empty history": (json.dumps({"log_history": [], "global_step": 1}), "there is none, or nothing in it"),
    "an entry that is a number": (json.dumps({"log_history": [{**GRPO, "step": 1}, 7]}), "expected an object for entry 1; got 7"),
    "a step that is a word": (json.dumps({"log_history": [{**GRPO, "step": "one"}]}), "field 'step': expected a whole number; got 'one'"),
    "a step that is a fraction": (json.dumps({"log_history": [{**GRPO, "step": 1.5}]}), "field 'step': expected a whole number"),
    "a step below zero": (json.dumps({"log_history": [{**GRPO, "step": -1}]}), "field 'step': expected a whole number from 0"),
    "a step beyond every database": (json.dumps({"log_history": [{**GRPO, "step": 2**63}]}), "field 'step'"),
    "a kl that is a word": (json.dumps({"log_history": [{**GRPO, "kl": "high", "step": 1}]}), "field 'kl': expected a number"),
    "a kl that is a list": (json.dumps({"log_history": [{**GRPO, "kl": [1], "step": 1}]}), "field 'kl': expected a number"),
    "a kl beyond every float": (
        json.dumps({"log_history": [{**GRPO, "kl": 0, "step": 1}]}).replace('"kl": 0', f'"kl": {"9" * 400}'),
        "field 'kl': expected a number that a float can hold",
    ),
    "a number of 5,000 digits": (
        json.dumps({"log_history": [{**GRPO, "kl": 0, "step": 1}]}).replace('"kl": 0', f'"kl": {"9" * 5000}'),
        "expected a JSON value; Exceeds the limit",
    ),
    "lists in lists": ('{"log_history": [' + "[" * 200_000, "expected a JSON value"),
    "bytes that are no text": (UNSLOTH.encode().replace(b"reward_std", b"reward_\xff\xfe"), "expected text in UTF-8"),
    "a name without end": (json.dumps({"log_history": [{**GRPO, "k" * 501: 1, "step": 1}]}), "expected names of at most 500 characters"),
    "a name that is no text": ('{"log_history": [{"kl": 0, "\\ud800": 1, "step": 1}]}', "expected names in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_state_is_one_line_that_says_where(tmp_path: Path, what: str) -> None:
    content, said = BAD[what]
    path = write(tmp_path / "trainer_state.json", content)
    with pytest.raises(InvalidImportFile) as caught:
        read_one(path, "trainer-state")
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
