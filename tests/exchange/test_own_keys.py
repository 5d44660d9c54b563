"""What a person says of his own keys goes before what the tables say, and slips are refused."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from klaudit.errors import InvalidConfig
from klaudit.exchange.metric_map import TRL_PPO, UNKNOWN_TRAINER, Framework, read_logs, resolve_series
from klaudit.exchange.own_keys import extend_framework, read_metric_map
from klaudit.records import KLSeries, StepRecord
from tests.exchange.framework_logs import LOGS

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
K1 = KLSeries(estimator="k1", unit="nats_per_token", aggregation="token_mean", temperature=0.8)
UPDATE = KLSeries(kind="update", estimator="k2", unit="nats_per_token", direction="forward")


def read(framework: Framework, logs: Mapping[str, Any], **arguments: Any) -> StepRecord:
    series, _ = resolve_series(framework, arguments=arguments, logged=logs.keys())
    return read_logs(logs, framework=framework, series=series, step=1, segment=0, logged_at=NOW)


def test_a_loop_of_ones_own_is_read_as_its_writer_says() -> None:
    own = extend_framework(
        UNKNOWN_TRAINER,
        {
            "my/kl": K1,
            "my/update": UPDATE,
            "my/reward": "score",
            "my/beta": "beta",
            "my/h": "entropy",
            "my/len": "response_length",
            "x": "depth",
        },
    )
    logs = {"my/kl": 0.02, "my/update": 0.001, "my/reward": 0.5, "my/beta": 0.04, "my/h": 1.2, "my/len": 30.0, "x": 3, "loss": 0.1}
    step = read(own, logs, temperature=1.0)
    assert (step.kl.value, step.kl.series) == (0.02, KLSeries("reference", "k1", "nats_per_token", "token_mean", "reverse", 0.8, "my/kl"))
    assert step.kl.mean_length == 30.0
    assert step.readings["my/update"].value == 0.001
    assert (step.score, step.beta) == (0.5, 0.04)
    assert step.metrics == {"entropy": 1.2, "response_length": 30.0, "depth": 3.0, "loss": 0.1}


def test_a_key_called_kl_beside_ones_own_keeps_a_key_of_its_own() -> None:
    step = read(extend_framework(UNKNOWN_TRAINER, {"my/kl": K1}), {"my/kl": 0.02, "kl": 0.3})
    assert (step.kl.value, step.readings["logged_kl"].value, step.readings["logged_kl"].series.kind) == (0.02, 0.3, "unknown")


def test_what_a_person_says_of_kl_is_believed() -> None:
    step = read(extend_framework(UNKNOWN_TRAINER, {"kl": K1}), {"kl": 0.02})
    assert (step.kl.value, step.kl.series.estimator, step.readings) == (0.02, "k1", {})


def test_a_known_trainer_keeps_the_rest_of_its_table() -> None:
    own = extend_framework(TRL_PPO, {"my/reward": "score", "my/entropy": "entropy"})
    step = read(own, {**LOGS["trl-ppo"], "my/reward": 0.25, "my/entropy": 9.0}, kl_estimator="k3")
    assert (step.kl.series.estimator, step.score, step.metrics["entropy"]) == ("k3", 0.25, 9.0)
    assert (step.metrics["objective/scores"], step.metrics["policy/entropy_avg"], step.metrics["kl_penalty"]) == (1.0, 1.5, 0.1)


def test_no_argument_changes_a_kl_that_a_person_declared() -> None:
    declared = KLSeries(estimator="k2", unit="nats_per_sequence")
    series, _ = resolve_series(extend_framework(TRL_PPO, {"objective/kl": declared}), arguments={"kl_estimator": "k3", "temperature": 0.7})
    assert series["kl"] == KLSeries(estimator="k2", unit="nats_per_sequence", source_key="objective/kl")


@pytest.mark.parametrize(
    ("metric_map", "message"),
    [
        ({"r": "scores"}, r"'scores' is no name of klaudit's; did you mean 'score'"),
        ({"h": "entrophy"}, "did you mean 'entropy'"),
        ({"h": "Learning_Rate"}, "did you mean 'learning_rate'"),
        ({"a": "score", "b": "score"}, "'score' is already what 'a' is"),
        ({"a": "kl"}, "a KL never travels alone; give a KLSeries"),
        ({"a": "kl_update"}, "a KL never travels alone"),
        ({"a": " "}, "expected a name such as 'score'"),
        ({"": "score"}, "expected the name of a logged number"),
        ({"a": 3}, "expected a KLSeries or a name such as 'score'; got 3"),
        ({"a": KLSeries(source_key="b")}, "its source_key is 'b'; leave it out or write 'a'"),
        ({"objective/kl": "score"}, "TRL PPO 0.12 to 1.12 logs a KL under this key; it cannot be 'score'"),
        ({"objective/scores": K1}, "logs its score under this key; a KLSeries does not describe it"),
        ({"policy/entropy_avg": K1}, "logs entropy, which is no KL under this key"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(metric_map: Any, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        extend_framework(TRL_PPO, metric_map)


def test_a_metric_map_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(
        '"my/reward" = "score"\n"my/kl" = { estimator = "k1", unit = "nats_per_token", temperature = 0.8, aggregation = "token_mean" }\n'
        '["policy.update"]\nkind = "update"\nestimator = "k2"\nunit = "nats_per_token"\ndirection = "forward"\n',
        encoding="utf-8",
    )
    assert read_metric_map(path) == {"my/reward": "score", "my/kl": K1, "policy.update": UPDATE}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"a" = 3', r"map.toml: 'a': expected a name such as \"score\" or a table"),
        ('"a" = { estimater = "k1" }', "map.toml: 'a': unknown field 'estimater'; known are kind, estimator"),
        ('"a" = { estimator = "k9" }', "map.toml: 'a': KLSeries.estimator must be one of"),
        ('"a" = { temperature = "hot" }', "map.toml: 'a': "),
        ('"a" = { temperature = 0 }', "map.toml: 'a': KLSeries.temperature must be above 0"),
        ("a = ", "map.toml: expected TOML"),
        ("\x00", "map.toml: expected TOML"),
    ],
)
def test_a_file_that_is_no_metric_map_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfig, match=message) as refused:
        read_metric_map(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="expected a metric map"):
        read_metric_map(tmp_path / "none.toml")
