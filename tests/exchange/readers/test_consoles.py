"""What TRL and OpenRLHF print, amid what else a terminal shows."""

import math
from pathlib import Path

from klaudit.exchange.console import read_dict, read_number
from tests.exchange.readers.reading import describe, read_one, write

# transformers 4 prints numbers; each bar writes over itself with a carriage return.
TRL_4 = (
    "Some weights of Qwen2ForSequenceClassification were not initialized\n"
    "{'a': 1, 'epochs': 3}\n"
    "  0%|          | 0/250 [00:00<?, ?it/s]\r  0%|          | 1/250 [00:03<12:01,  2.90s/it]\r"
    "{'loss': 0.0, 'grad_norm': 0.65, 'learning_rate': 2e-07, 'completions/mean_length': 200.0, 'frac_reward_zero_std': 0.5, "
    "'reward': 0.5, 'reward_std': 0.1, 'kl': 0.0, 'clip_ratio/region_mean': 0.0, 'completion_length': 200.0, 'epoch': 0.01}\n"
    "  1%|          | 2/250 [00:06<12:01,  2.90s/it]\r\x1b[A\n"
    "{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 4e-07, 'completions/mean_length': 180.0, 'frac_reward_zero_std': 0.5, "
    "'reward': 0.25, 'reward_std': 0.1, 'kl': 0.02, 'clip_ratio/region_mean': 0.0, 'completion_length': 180.0, 'epoch': 0.02}\n"
    "{'eval_loss': 0.5, 'eval_runtime': 1.5, 'epoch': 0.02}\n"
    "{'train_runtime': 30.1, 'train_samples_per_second': 1.0, 'train_loss': 0.0, 'epoch': 0.02}\n"
)


def test_what_trl_prints_is_a_run_whose_steps_are_counted(tmp_path: Path) -> None:
    read = read_one(write(tmp_path / "train.log", TRL_4))
    assert read.format_name == "trl-console"
    assert describe(read.run.series) == {"kl": ("reference", "k3", "nats_per_token")}
    assert read.places == [(0, 1), (0, 2)]
    assert read.kls == [0.0, 0.02]
    assert [step.score for step in read.steps] == [0.5, 0.25]
    assert math.isnan(read.steps[1].metrics["grad_norm"])
    assert read.steps[1].metrics["eval_loss"] == 0.5
    assert any("does not name its steps" in note for note in read.notes)


def test_transformers_5_prints_numbers_as_strings(tmp_path: Path) -> None:
    # transformers 5.23 trainer_callback.py lines 672-690 and 704-708.
    keys = "'completions/mean_length': '20', 'frac_reward_zero_std': '0', 'completion_length': '20', 'reward': '0.5', 'reward_std': '0.1'"
    lines = [
        f"{{'loss': '0.1234', {keys}, 'kl': '{kl}', 'note': 'a {{b}} \\'c\\'', 'epoch': '0.0{n}'}}"
        for n, kl in enumerate(("0.01", "nan"), 1)
    ]
    read = read_one(write(tmp_path / "train.log", "\n".join(lines)))
    assert repr(read.kls) == "[0.01, nan]"
    assert read.steps[0].metrics["loss"] == 0.1234


def test_a_trainer_that_starts_again_in_the_same_log_begins_a_segment(tmp_path: Path) -> None:
    lines = [f"{{'loss': 0.1, 'kl': 0.{n}, 'epoch': {epoch}}}" for n, epoch in enumerate((0.1, 0.2, 0.1, 0.2), 1)]
    read = read_one(write(tmp_path / "train.log", "\n".join(lines)))
    assert read.places == [(0, 1), (0, 2), (1, 3), (1, 4)]


# OpenRLHF 0.11.2 openrlhf/utils/logging_utils.py line 10 and trainer/ppo_trainer.py line 551; ppo_trainer_async.py line 244 has no star.
OPENRLHF = """\
(PPOTrainer pid=77) INFO 11-22 10:00:00 ppo_trainer.py:224] Sample: ['<|user|> {\\'kl\\': 9}']
\x1b[36m(PPOTrainer pid=77)\x1b[0m INFO 11-22 10:00:09 ppo_trainer.py:551] ✨ Global step 1: {'policy_loss': 0.01, 'kl': 0.0, \
'ppo_kl': tensor(0.0003), 'reward': 0.5, 'response_length': 120.0, 'actor_lr': 1e-06, 'timing/generation': 3.5}
Episode [1/1]:  50%|#####     | 1/2 [00:09<00:09]
INFO 11-22 10:00:18 ppo_trainer_async.py:244] Global step 2: {'policy_loss': 0.02, 'kl': 0.013, 'ppo_kl': 0.0004, 'reward': 0.6, \
'response_length': 121.0, 'actor_lr': 1e-06, 'vllm_kl': nan}
INFO 11-22 10:00:27 ppo_trainer.py:551] ✨ Global step 3: {'policy_loss': 0.02, 'kl': 0.0
"""


def test_what_openrlhf_prints_is_a_run(tmp_path: Path) -> None:
    read = read_one(write(tmp_path / "ray.log", OPENRLHF))
    assert (read.format_name, read.run.framework) == ("openrlhf-console", "openrlhf")
    assert describe(read.run.series)["kl"] == ("reference", "k1", "nats_per_token")
    assert read.places == [(0, 1), (0, 2)]
    assert read.kls == [0.0, 0.013]
    assert [step.score for step in read.steps] == [0.5, 0.6]
    assert any(note.startswith("1 steps of the log could not be read") for note in read.notes)


def test_printed_numbers_are_read_and_nothing_is_evaluated() -> None:
    spelled = [
        "1",
        "-0.5",
        "+1e-05",
        ".5",
        "1.",
        "nan",
        "-inf",
        "np.float64(0.1)",
        "np.int64(3)",
        "tensor(2., device='cuda:0')",
        "numpy.float32(1.5)",
    ]
    numbers = [1, -0.5, 1e-05, 0.5, 1, math.nan, -math.inf, 0.1, 3, 2, 1.5]
    assert repr([read_number(one) for one in spelled]) == repr([float(one) for one in numbers])
    for other in ("", "one", "0x10", "1e", "__import__('os')", "np.float64(__import__('os'))", "tensor([1, 2])", "1 2"):
        assert read_number(other) is None


def test_a_dictionary_is_read_to_its_brace_or_not_at_all() -> None:
    printed = """{'a': 1, "b": 'text with {brace} and \\'quote\\'', 'c': None, 'd': True, 'e': [1, 2], 'f': 'nan'} and more"""
    values = read_dict(printed, 0)
    assert values is not None
    assert repr(values.pop("f")) == "nan"
    assert values == {"a": 1.0, "b": "text with {brace} and \\'quote\\'", "c": None, "d": "True", "e": "[1, 2]"}
    for other in ("{'a': 1", "{'a': exit()}", "{'a': {'b': 1}}", "{a: 1}", "{'a' 1}", "{"):
        assert read_dict(other, 0) is None
