import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from klaudit.audit import PRESETS, AuditEngine, Policy, audit_run
from klaudit.audit.rules.entropy_collapse import EntropyCollapse, EntropyCollapseParameters
from klaudit.audit.rules.entropy_explosion import EntropyExplosion, EntropyExplosionParameters
from klaudit.records import Run, StepRecord

Builder = Callable[..., StepRecord]


def list_entropies() -> list[float]:
    """A rise to three times, back, and a fall to a tenth."""
    noise = np.random.default_rng(3).normal(0, 0.03, size=240)
    levels = [1.0] * 60 + [3.0] * 40 + [1.0] * 60 + [0.1] * 80
    return [level * math.exp(one) for level, one in zip(levels, noise, strict=True)]


def switch_off(code: str) -> Policy:
    policy = PRESETS["default"]
    return replace(policy, rules={**policy.rules, code: replace(policy.rules[code], enabled=False)})


def test_rules_on_one_series_share_a_watch_where_they_hold_it_against_the_same_past(build_run: Callable[..., Run]) -> None:
    fall = EntropyCollapse(build_run(), parameters=EntropyCollapseParameters())
    rise = EntropyExplosion(build_run(), parameters=EntropyExplosionParameters())
    later = EntropyExplosion(build_run(), parameters=EntropyExplosionParameters(delay=20))
    assert rise.shares_with(fall)
    assert rise.watch is fall.watch
    assert not later.shares_with(fall)
    assert later.watch is not fall.watch


def test_a_rule_says_the_same_with_and_without_the_other(build_run: Callable[..., Run], build_step: Builder) -> None:
    steps = [build_step(step, 1.0, metrics={"entropy": one}) for step, one in enumerate(list_entropies())]
    together = [one for one in audit_run(build_run(), steps).findings if one.code in ("KLA603", "KLA604")]
    alone = [
        finding
        for code, other in (("KLA603", "KLA604"), ("KLA604", "KLA603"))
        for finding in audit_run(build_run(), steps, policy=switch_off(other)).findings
        if finding.code == code
    ]
    assert {one.code for one in together} == {"KLA603", "KLA604"}
    assert sorted(together, key=lambda one: one.id) == sorted(alone, key=lambda one: one.id)


def test_steps_without_the_series_change_nothing_however_they_are_mixed(build_run: Callable[..., Run], build_step: Builder) -> None:
    steps = [
        build_step(step, 1.0, metrics={"entropy": one} if step % 7 else {"loss": 1.0})
        for step, one in enumerate(one for one in list_entropies() for _ in range(2))
    ]
    live = AuditEngine(build_run())
    for step in steps:
        live.observe(step)
    assert live.findings == audit_run(build_run(), steps).findings
    assert {one.code for one in live.findings} >= {"KLA603", "KLA604"}
