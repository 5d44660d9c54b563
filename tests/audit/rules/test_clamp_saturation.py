import numpy as np
import pytest

from klaudit.audit.rules.clamp_saturation import ClampSaturation, ClampSaturationParameters, find_clamps
from klaudit.records import Finding, KLSeries, Run
from tests.audit.rules.rounded_series import NOW, RUN, draw_series, judge


def find_ceilings(values: list[float]) -> list[Finding]:
    return judge(ClampSaturation(RUN, parameters=ClampSaturationParameters()), values)


@pytest.mark.parametrize("decimals", [2, 3, 4, 12])
def test_healthy_series_of_any_decimals_have_no_ceiling(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    assert not [finding for _ in range(100) for finding in find_ceilings(draw_series(rng, decimals=decimals))]


def test_a_series_whose_upper_half_is_cut_off_is_found() -> None:
    rng = np.random.default_rng(5)
    n_found = 0
    for _ in range(60):
        values = draw_series(rng, decimals=12)
        onset = int(rng.integers(60, 340))
        ceiling = float(np.median(values[onset : onset + 40]))
        values[onset:] = [min(value, ceiling) for value in values[onset:]]
        n_found += any(onset <= finding.detected_step <= onset + 40 for finding in find_ceilings(values))
    assert n_found / 60 >= 0.85


@pytest.mark.parametrize(
    ("framework", "estimator", "source_key", "clamps"),
    [
        ("openrlhf", "k1", "kl", {"kl": 10.0}),
        ("openrlhf", "k1", None, {"kl": 10.0}),
        ("openrlhf", "full", "kl", {}),
        ("verl", "k3", "actor/kl_loss", {"kl": 10.0}),
        ("verl", "k1", "actor/reward_kl_penalty", {}),
        ("trl", "k3", "kl", {}),
        (None, "k3", "kl", {}),
    ],
)
def test_the_clamp_is_that_of_the_trainers_table(
    framework: str | None, estimator: str, source_key: str | None, clamps: dict[str, float]
) -> None:
    series = KLSeries(estimator=estimator, unit="nats_per_token", source_key=source_key)  # type: ignore[arg-type]
    assert find_clamps(Run(id="r1", name="clamped", started_at=NOW, framework=framework, series={"kl": series})) == clamps
