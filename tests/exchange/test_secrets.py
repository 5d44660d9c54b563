import json
import math
import os
import string
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaudit.exchange.secrets import MOST_CHARACTERS, SECRET, describe_arguments, find_environment_secrets, judge_name, mask_secrets

KEYS = {
    "hugging face": "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3f",
    "openai": "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5v",
    "anthropic": "sk-ant-api03-" + "aB3dE5gH7jK9mN1pQ3sT5v",
    "stripe": "sk_live_" + "aB3dE5gH7jK9mN1pQ3sT5v",
    "github": "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5",
    "github, fine-grained": "github_pat_" + "11AAAAAAA0aB3dE5gH7jK9_mN1pQ3sT5vW7yZ9",
    "gitlab": "glpat-" + "aB3dE5gH7jK9mN1pQ3sT",
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws, temporary": "ASIA" + "IOSFODNN7EXAMPLE",
    "slack": "xoxb-" + "123456789012-abcdefABCDEF",
    "google": "AIza" + "SyA1bC2dE3fG4hI5jK6lM7nO8pQ9rS0tU1vW",
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "wandb": "wandb_v1_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9",
    "replicate": "r8_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5h",
    "npm": "npm_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5",
    "pypi": "pypi-" + "AgEIcHlwaS5vcmcCJGFiY2Q",
}
"""Made up, and put together here so that no scanner takes this file for a leak."""

COMMIT = "4fd1b2c3a4958677869504132afbecdd01234567"


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("text", ["{}", "use {} here", "run --x={}", '["{}"]', "https://{}@host/path", "a,{},b", "\n{}\n"])
def test_a_key_is_known_by_its_form_wherever_it_stands(key: str, text: str) -> None:
    described = describe_arguments({"note": text.format(key)})
    assert key not in json.dumps(described)
    assert SECRET in described["note"]


@pytest.mark.parametrize(
    "name",
    [
        "hub_token", "push_to_hub_token", "hubToken", "HF_TOKEN", "use_auth_token", "token", "auth_tokens", "WANDB_API_KEY", "apikey", "openai.api-key",
        "password", "db_passwd", "PGPASSWORD", "client_secret", "aws_secret_access_key", "credentials", "private_key", "session_key", "auth",
        "auth_header", "cookie", "sentry_dsn", "connection_string", "AccountKey", "authToken", "webhook_url", "SSH_KEY", "github_pat", "jwt",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["s3cret", ["s3cret"], {"x": ("s3cret", {"y": "s3cret"})}])
def test_a_text_under_a_secret_name_is_never_recorded(name: str, value: Any) -> None:
    described = describe_arguments({"outer": [{name: value}]})
    assert "s3cret" not in json.dumps(described)
    assert SECRET in json.dumps(described)


HARMLESS: dict[str, Any] = {
    "learning_rate": 1e-5,
    "max_new_tokens": 16,
    "max_tokens": "512",
    "num_input_tokens_seen": 0,
    "include_num_input_tokens_seen": "no",
    "pad_token_id": 0,
    "eos_token": "</s>",
    "pad_token": "<|endoftext|>",
    "stop_token": "eos",
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    "stop_token_ids": [1, 2],
    "token_ids": [3],
    "loss_agg_mode": "token-mean",
    "tokenizer_name": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "skip_tokenizer_init": False,
    "use_auth_token": True,
    "hub_token": None,
    "reward_fn_key": "data_source",
    "prompt_key": "prompt",
    "label_names": None,
    "output_dir": "out/run-2026-11-22/checkpoint-1200",
    "run_name": "kl-0.05-seed-7",
    "hub_model_id": "owner/model",
    "metric_for_best_model": "eval_loss",
    "author": "somebody",
    "commit": COMMIT,
    "digest": "sha256:" + "0123456789abcdef" * 4,
    "trainer": "klaudit.ppo.trainer.PPOTrainer",
    "key_of_dataset": "openai/gsm8k",
    "endpoint": "http://localhost:8000/v1/models",
    "clone": "git@github.com:owner/repository.git",
    "template": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}",
    "command": "train.py --learning-rate 1e-5 --max-new-tokens 16 pad_token=<pad> lr=3",
    "ratio": "task-specific-2024-baseline-0123456789",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_stays(name: str) -> None:
    assert describe_arguments({name: HARMLESS[name]}) == {name: HARMLESS[name]}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://klaudit:pa:ss/w@rd@db:5432/runs", f"postgresql://klaudit:{SECRET}@db:5432/runs"),
        ("redis://:hunter2@cache", f"redis://:{SECRET}@cache"),
        ("host=db password=hunter2 dbname=runs", f"host=db password={SECRET} dbname=runs"),
        ("train.py --hub-token hunter2 --steps 3", f"train.py --hub-token {SECRET} --steps 3"),
        ("train.py --hub_token=hunter2 --steps 3", f"train.py --hub_token={SECRET} --steps 3"),
        ("trainer.wandb_token=hunter2", f"trainer.wandb_token={SECRET}"),
        ("Config(lr=0.1, token='hunter2', steps=3)", f"Config(lr=0.1, token='{SECRET}', steps=3)"),
        ('{"api_key": "hunter2", "lr": 1}', f'{{"api_key": "{SECRET}", "lr": 1}}'),
        ('"{\\"api_key\\": \\"hunter2\\", \\"lr\\": 1}"', f'"{{\\"api_key\\": \\"{SECRET}\\", \\"lr\\": 1}}"'),
        ("password='two words", f"password='{SECRET}"),
        ("Authorization: Basic aHVudGVyMg==", f"Authorization: {SECRET}"),
        ("curl -H 'Authorization: Bearer hunter2hunter2'", f"curl -H 'Authorization: {SECRET}'"),
        ("url=https://host/x?api_key=hunter2", f"url=https://host/x?api_key={SECRET}"),
        ("https://hooks.slack.com/services/T0/B0/hunter2", f"https://hooks.slack.com/{SECRET}"),
        ("https://account.blob.example/c?sv=2024&sig=hunter2&se=1", f"https://account.blob.example/c?sv=2024&sig={SECRET}&se=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIhunter2\n-----END RSA PRIVATE KEY-----", SECRET),
        ("-----BEGIN PRIVATE KEY-----\nMIIhunter2, cut off", SECRET),
        ("api_key=None", "api_key=None"),
    ],
)  # fmt: skip
def test_a_secret_inside_a_text_is_replaced_and_the_rest_stays(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked
    assert mask_secrets(masked) == masked


def test_two_names_may_say_together_what_neither_says() -> None:
    described = describe_arguments({"logger": {"wandb": {"key": "hunter2", "org": "us"}}, "api": [{"keys": ["hunter2"]}]})
    assert described == {"logger": {"wandb": {"key": SECRET, "org": "us"}}, "api": [{"keys": [SECRET]}]}


@pytest.mark.parametrize("name", ["wandb", "access", "signed_key", "stop_token"])
def test_a_random_text_under_a_key_is_a_key(name: str) -> None:
    assert describe_arguments({name: "8f14e45fceea167a5a36dedd4bea2543aabbccdd"}) == {name: SECRET}


def test_arguments_of_a_command_line_that_is_split() -> None:
    assert describe_arguments({"argv": ["train.py", "--hub-token", "hunter2", "--steps", "3", "--token"]}) == {
        "argv": ["train.py", "--hub-token", SECRET, "--steps", "3", "--token"]
    }


def test_an_environment_keeps_its_names_and_none_of_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIN", "value-of-plain")
    described = describe_arguments({"vars": os.environ, "runtime_env": {"env_vars": {"NCCL_DEBUG": "WARN"}}})
    assert described["vars"]["PLAIN"] == SECRET
    assert described["runtime_env"] == {"env_vars": {"NCCL_DEBUG": SECRET}}
    assert describe_arguments({"env": [{"name": "HF_TOKEN", "value": "hunter2"}, {"name": "MODE", "value": "fast"}]}) == {
        "env": [{"name": "HF_TOKEN", "value": SECRET}, {"name": "MODE", "value": "fast"}]
    }


def test_a_secret_of_the_environment_is_known_under_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct horse battery")
    assert describe_arguments({"greeting": "say correct horse battery now"}) == {"greeting": f"say {SECRET} now"}


def test_short_values_and_counts_of_the_environment_are_no_secrets() -> None:
    environment = {"A_TOKEN": "short", "MAX_TOKENS": "1234567890", "TOKENIZERS_PARALLELISM": "false-or-true", "B_SECRET": "long enough", "C_TOKEN": "longer than that"}  # fmt: skip
    assert find_environment_secrets(environment) == ("longer than that", "long enough")


@dataclass
class Settings:
    learning_rate: float = 0.1
    api_token: str = "s3cret"
    nested: dict[str, Any] = field(default_factory=lambda: {"password": "s3cret"})


class Strategy(Enum):
    STEPS = "steps"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_every_kind_of_value_becomes_json() -> None:
    values: dict[Any, Any] = {
        "settings": Settings(),
        "strategy": Strategy.STEPS,
        "path": PurePosixPath("out"),
        "spikes": ((36, 3, 20.0),),
        "names": {"b", "a"},
        "not_a_number": math.nan,
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True)],
        "model_max_length": int(1e30),
        "raw": b"s3cret",
        "broken": Broken(),
        "long": "x" * (MOST_CHARACTERS + 1),
        "many": list(range(1001)),
        3: None,
    }
    described = describe_arguments(values)
    assert described == {
        "settings": {"learning_rate": 0.1, "api_token": SECRET, "nested": {"password": SECRET}},
        "strategy": "steps",
        "path": "out",
        "spikes": [[36, 3, 20.0]],
        "names": ["a", "b"],
        "not_a_number": "NaN",
        "numpy": [0.5, 3, "True"],
        "model_max_length": str(int(1e30)),
        "raw": "(6 bytes, not recorded)",
        "broken": "(cannot be read: RuntimeError)",
        "long": "(20001 characters, not recorded)",
        "many": "(1001 items, not recorded)",
        "3": None,
    }
    json.dumps(described, allow_nan=False)


def test_what_is_nested_in_itself_or_too_deep_ends() -> None:
    loop: dict[str, Any] = {}
    loop |= {"left": loop, "right": [loop, loop]}
    assert describe_arguments(loop)["left"].startswith("(nested")
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    json.dumps(describe_arguments({"deep": deep}))


def test_a_mapping_that_cannot_be_read_costs_one_value() -> None:
    class Missing(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise LookupError(name)

    assert describe_arguments(Missing(path="???")) == {"path": "(cannot be read: LookupError)"}


ALPHABET = string.ascii_letters + string.digits
SECRET_NAMES = st.sampled_from(["hub_token", "PASSWORD", "clientSecret", "wandb-api-key", "a.private_key", "auth_token", "credentials"])
TEXTS = st.text(alphabet=ALPHABET + " _-/.", max_size=12)
NAMES = st.text(alphabet=string.ascii_lowercase + "_", min_size=1, max_size=8)


@st.composite
def planted(draw: st.DrawFn) -> tuple[Any, str]:
    """A value with one secret in it, under a secret name or known by its form, at a random depth."""
    if draw(st.booleans()):
        secret = "x9" + draw(st.text(alphabet=ALPHABET, min_size=6, max_size=30))
        value: Any = {draw(SECRET_NAMES): secret}
    else:
        secret = draw(st.sampled_from(sorted(KEYS.values())))
        around = draw(st.tuples(TEXTS, TEXTS))
        value = f"{around[0]} {secret} {around[1]}"
    for _ in range(draw(st.integers(0, 6))):
        wrap = draw(st.sampled_from(["list", "tuple", "dict", "key"]))
        if wrap == "dict":
            value = draw(st.dictionaries(NAMES, TEXTS, max_size=3)) | {draw(NAMES): value}
        elif wrap == "key" and isinstance(value, str):
            value = {value: draw(TEXTS)}
        else:
            value = [*draw(st.lists(TEXTS, max_size=3)), value] if wrap == "list" else (value,)
    return {"arguments": value}, secret


@given(planted())
def test_no_planted_secret_is_ever_in_the_record(case: tuple[Any, str]) -> None:
    arguments, secret = case
    assert secret not in json.dumps(describe_arguments(arguments), ensure_ascii=False)


@given(st.text(max_size=200))
def test_masking_twice_is_masking_once(text: str) -> None:
    masked = mask_secrets(text)
    assert mask_secrets(masked) == masked


def test_names_are_judged_by_their_words() -> None:
    assert {name: judge_name(name) for name in ("tokenizer", "token", "eos_token", "APIKey", "sort_key", "monkey", "authority")} == {
        "tokenizer": "open",
        "token": "token",
        "eos_token": "key",
        "APIKey": "secret",
        "sort_key": "key",
        "monkey": "open",
        "authority": "open",
    }
