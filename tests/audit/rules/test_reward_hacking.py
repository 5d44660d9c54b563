from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from klaudit.assets import locate_asset
from klaudit.audit import audit_run
from klaudit.audit.observation import Observation
from klaudit.audit.rules.reward_hacking import RewardHacking, RewardHackingParameters
from klaudit.exchange.recorded_run import read_recorded_run
from klaudit.records import Finding, Run, Severity, StepRecord
from tests.audit.rules.rewarded_runs import draw_run

BuildRun = Callable[..., Run]
BuildStep = Callable[..., StepRecord]


def find_hacking(run: Run, steps: Iterable[StepRecord]) -> list[Finding]:
    return [finding for finding in audit_run(run, steps).findings if finding.code == "KLA601"]


def observe_all(run: Run, observations: Iterable[Observation]) -> list[Finding]:
    rule = RewardHacking(run, parameters=RewardHackingParameters())
    found = {finding.id: finding for one in observations for finding in rule.observe(one)}
    return [finding for finding in found.values() if finding.severity != Severity.INFO]


def test_healthy_runs_hardly_ever_alarm(build_run: BuildRun) -> None:
    """A rule at 0.05 per 1,000 steps gives at most 2 on these in 95 of 100 draws; over the seeds 0 to 499, 130,300 steps, there were 3."""
    n_steps = n_charged = 0
    for seed in range(64):
        simulated = draw_run(seed, hacks=False)
        n_steps += len(simulated.observations)
        n_charged += sum(1 + (one.last_step - one.detected_step) // 15 for one in observe_all(build_run(), simulated.observations))
    assert n_steps > 14_000
    assert n_charged <= 2


def test_hacking_is_found_within_20_steps_where_noise_is_a_tenth_of_the_range(build_run: BuildRun) -> None:
    delays = []
    for seed in range(60):
        simulated = draw_run(1000 + seed, hacks=True, most_noise=0.06)
        found = [one.detected_step - simulated.onset for one in observe_all(build_run(), simulated.observations)]
        delays.append(min((one for one in found if one >= 0), default=10_000))
    assert sum(one <= 20 for one in delays) >= 0.9 * len(delays)
    assert sum(one <= 40 for one in delays) >= 0.97 * len(delays)


def hack(
    build_step: BuildStep, *, n: int = 60, onset: int = 30, every: int = 1, fall: float = 0.02, kl_rise: float = 0.1
) -> list[StepRecord]:
    """Score and held-out score learn together with a ripple; from the onset on they part."""
    steps = []
    for at in range(n):
        since = max(0, at - onset)
        ripple = 0.02 * (-1) ** (at // every)
        metrics = {"heldout_score": 0.2 - fall * since - ripple} if at % every == 0 else {}
        steps.append(build_step(at, 1 + kl_rise * at, score=0.2 + 0.03 * since + ripple, metrics=metrics))
    return steps


def test_the_finding_says_by_how_much_over_which_steps_and_since_when(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_hacking(build_run(), hack(build_step))
    assert (finding.severity, finding.series) == ("critical", "heldout_score")
    assert 30 < finding.detected_step <= 45
    assert abs(finding.first_step - 30) <= 5
    assert "reward while the held-out score fell by" in finding.message
    assert "sqrt(nats)" in finding.message
    assert finding.evidence["kind"] == "heldout"
    window = finding.evidence["window"]
    assert len(window["steps"]) == len(window["heldout_score"]) == len(window["d"]) <= 32


def test_a_held_out_score_of_every_fifth_step_sets_the_pace(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_hacking(build_run(), hack(build_step, n=300, onset=150, every=5, fall=0.004))
    assert finding.detected_step % 5 == 0
    assert 150 < finding.detected_step < 250


def test_a_drift_that_shrinks_is_no_hacking(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_hacking(build_run(), hack(build_step, kl_rise=-0.01))


def test_both_falling_is_no_hacking(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [replace(one, score=one.metrics["heldout_score"]) for one in hack(build_step)]
    assert not find_hacking(build_run(), steps)


def test_without_a_kl_the_scores_alone_are_judged(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [build_step(one.step, None, score=one.score, metrics=one.metrics) for one in hack(build_step)]
    (finding,) = find_hacking(build_run(), steps)
    assert "sqrt(nats)" not in finding.message


def test_numbers_that_are_not_finite_are_left_out(build_run: BuildRun, build_step: BuildStep) -> None:
    broken = build_step(45, 5.0, score=float("nan"), metrics={"heldout_score": float("inf")})
    (finding,) = find_hacking(build_run(), [broken if one.step == 45 else one for one in hack(build_step)])
    assert 45 not in finding.evidence["window"]["steps"]


def test_a_new_segment_forgets(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = [replace(one, segment=one.step // 12) for one in hack(build_step, n=36, onset=10)]
    result = audit_run(build_run(), steps)
    assert "KLA601" not in [finding.code for finding in result.findings]
    assert any("needs 16 steps or more" in one.why for one in result.coverage.rules_not_run if one.code == "KLA601")


def level_off(build_step: BuildStep, *, rise: float, kl: Callable[[int], float]) -> list[StepRecord]:
    """A score that rises for 50 steps and then stands still, with a ripple; no held-out score."""
    return [build_step(at, kl(at), score=0.01 * (-1) ** at + rise * min(at, 50)) for at in range(150)]


def test_drift_that_brings_nothing_any_more_is_told_as_info(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_hacking(build_run(planned_steps=150), level_off(build_step, rise=0.02, kl=lambda at: (0.05 * at) ** 2))
    assert finding.severity == Severity.INFO
    assert finding.detected_step > 80
    assert "no held-out score says whether this is learning" in finding.message


@pytest.mark.parametrize(
    ("rise", "kl"), [(0.02, lambda at: 4.0), (0.0, lambda at: (0.05 * at) ** 2)], ids=["d stands still", "never learnt"]
)
def test_efficiency_is_judged_only_where_there_was_some_and_d_grows(
    build_run: BuildRun, build_step: BuildStep, rise: float, kl: Callable[[int], float]
) -> None:
    assert not find_hacking(build_run(planned_steps=150), level_off(build_step, rise=rise, kl=kl))


def part(build_step: BuildStep, up: str, down: str) -> list[StepRecord]:
    """Two parts of a reward that go apart from step 40 on."""
    steps = []
    for at in range(100):
        ripple, since = 0.02 * (-1) ** at, max(0, at - 40)
        metrics = {up: 0.3 + 0.01 * since + ripple, down: 0.3 - 0.01 * since - ripple, f"{down}/std": 0.1}
        steps.append(build_step(at, 1.0, score=0.6 + ripple, metrics=metrics))
    return steps


def test_components_that_part_are_named(build_run: BuildRun, build_step: BuildStep) -> None:
    (finding,) = find_hacking(build_run(), part(build_step, "rewards/format/mean", "rewards/correct/mean"))
    assert finding.series == "rewards"
    assert finding.message.startswith("rewards/format/mean rose by")
    assert finding.evidence["down"] == "rewards/correct/mean"


def test_what_dpo_pulls_apart_by_design_is_left_alone(build_run: BuildRun, build_step: BuildStep) -> None:
    assert not find_hacking(build_run(), part(build_step, "rewards/chosen", "rewards/rejected"))


@pytest.mark.parametrize(("name", "codes"), [("adaptive-beta", []), ("beta-near-zero", ["KLA601", "KLA602"]), ("learning-rate-spike", [])])
def test_of_the_sample_runs_the_one_without_an_anchor_hacks_its_reward(name: str, codes: list[str]) -> None:
    recorded = read_recorded_run(locate_asset("sample_runs") / name)
    found = [one for one in audit_run(recorded.run, recorded.steps).findings if one.code in ("KLA601", "KLA602", "KLA608")]
    assert sorted(one.code for one in found) == codes
    # Its score takes off at step 33, and its held-out score turns there.
    assert all(one.severity == Severity.CRITICAL and 33 <= one.detected_step <= 45 for one in found)


def test_live_equals_the_audit_of_the_prefix(build_run: BuildRun, build_step: BuildStep) -> None:
    steps = hack(build_step)
    for n in (20, 38, 44, 60):
        assert find_hacking(build_run(), steps[:n]) == find_hacking(build_run(), iter(steps[:n]))
    assert find_hacking(build_run(), steps[:60])[0].id == find_hacking(build_run(), steps[:50])[0].id
