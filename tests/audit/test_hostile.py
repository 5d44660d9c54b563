"""Whatever the records and the policy, an audit ends, and says something that can be stored, printed and believed."""

import json
import os
import tomllib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from klaudit.audit import PRESETS, Audit, AuditEngine, Policy, audit_run, list_rules, read_policy
from klaudit.audit.backtest import backtest_run
from klaudit.audit.policy_content import derive_policy
from klaudit.errors import InvalidConfig
from klaudit.records import Finding, Severity
from tests.audit.hostile import LONGEST_RUN, HostileRun, make_content, make_run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

IS_SOAK = bool(os.environ.get("KLAUDIT_SOAK"))
SEEDS = st.integers(0, 2**32)
LENGTHS = st.integers(0, LONGEST_RUN)
LONGEST_EXAMPLE = timedelta(seconds=60)
"""An audit of so few steps that takes so long hangs."""
SEVERITIES = {rule.code: rule.severities for rule in list_rules()}


def hostile(share: float = 1.0) -> Callable[[Any], Any]:
    """10,000 examples in soak, some 200 of the same ones otherwise; a share of them for what takes longer."""
    return settings(
        max_examples=round((10_000 if IS_SOAK else 200) * share),
        deadline=LONGEST_EXAMPLE,
        derandomize=not IS_SOAK,
        database=None,
        suppress_health_check=list(HealthCheck),
        # The examples are seeds: a smaller one is not simpler, and to look for it takes longer than all of them.
        phases=(Phase.explicit, Phase.generate),
    )


def make_policy(seed: int) -> Policy:
    """A random policy; where two of its values cannot go together, the preset that it extends."""
    content = make_content(seed)
    try:
        return derive_policy(PRESETS[content["extends"]], content, where="random")
    except InvalidConfig:
        return PRESETS[content["extends"]]


def read_or_refuse(read: Callable[[], Policy]) -> Policy | str:
    """The policy, or why it was refused."""
    try:
        return read()
    except InvalidConfig as error:
        return str(error)


def require_sound(audit: Audit, hostile_run: HostileRun) -> None:
    findings = audit.findings
    assert len({one.id for one in findings}) == len(findings)
    assert list(findings) == sorted(findings, key=lambda one: (one.first_step, one.code, one.id))
    for one in findings:
        settings_of_rule = audit.policy.rules[one.code]
        assert settings_of_rule.enabled
        assert one.severity in ([settings_of_rule.severity] if settings_of_rule.severity else SEVERITIES[one.code])
        assert one.first_step <= one.detected_step <= one.last_step
        assert one.message.strip()
        assert one.remedy.strip()
        assert "\n" not in one.message
    assert all(silent.why.strip() for silent in audit.coverage.rules_not_run)
    assert audit.coverage.steps <= len(hostile_run.steps)
    printed = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert [one["id"] for one in printed["findings"]] == [one.id for one in findings]


@hostile()
@given(run_seed=SEEDS, policy_seed=SEEDS, n_steps=LENGTHS)
def test_any_records_under_any_policy_give_a_sound_audit(run_seed: int, policy_seed: int, n_steps: int) -> None:
    hostile_run, policy = make_run(run_seed, n_steps), make_policy(policy_seed)
    audit = audit_run(hostile_run.run, hostile_run.steps, policy=policy, budgets=hostile_run.budgets, segments=hostile_run.segments)
    require_sound(audit, hostile_run)


@hostile(0.4)
@given(run_seed=SEEDS, policy_seed=SEEDS, n_steps=LENGTHS, cut=LENGTHS)
def test_live_at_any_step_equals_the_audit_of_the_steps_so_far(run_seed: int, policy_seed: int, n_steps: int, cut: int) -> None:
    hostile_run, policy = make_run(run_seed, n_steps), make_policy(policy_seed)
    run, budgets, seen = hostile_run.run, hostile_run.budgets, hostile_run.steps[:cut]
    engine = AuditEngine(run, policy, budgets)
    told: dict[str, Finding] = {finding.id: finding for one in hostile_run.segments for finding in engine.observe_segment(one)}
    for record in seen:
        for finding in engine.observe(record):
            before = told.get(finding.id, finding)
            assert (finding.detected_step, finding.segment, finding.code) == (before.detected_step, before.segment, before.code)
            assert finding.severity.rank >= before.severity.rank
            assert finding.first_step <= before.first_step
            told[finding.id] = finding
    afterwards = audit_run(run, seen, policy=policy, budgets=budgets, segments=hostile_run.segments)
    assert repr(engine.conclude().to_dict()) == repr(afterwards.to_dict())
    assert repr(sorted(told.items())) == repr(sorted((finding.id, finding) for finding in afterwards.findings))
    for record in hostile_run.steps[cut:]:
        engine.observe(record)
    whole = audit_run(run, hostile_run.steps, policy=policy, budgets=budgets, segments=hostile_run.segments)
    assert repr(engine.conclude().to_dict()) == repr(whole.to_dict())


@hostile(0.15)
@given(run_seed=SEEDS, policy_seed=SEEDS, n_steps=LENGTHS)
def test_any_records_are_tried_under_any_two_policies(run_seed: int, policy_seed: int, n_steps: int) -> None:
    hostile_run = make_run(run_seed, n_steps)
    found = backtest_run(
        hostile_run.run,
        hostile_run.steps,
        policy=make_policy(policy_seed),
        against=make_policy(policy_seed + 1),
        budgets=hostile_run.budgets,
        segments=hostile_run.segments,
        at_least=Severity.INFO,
    )
    assert sum(len(one.policy) + len(one.against) for one in found.moments) == len(found.policy.firings) + len(found.against.firings)
    assert (found.collapse is None) == (n_steps == 0)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**70, -(2**1000), 10**300]),
    st.floats(),
    st.text(),
    st.datetimes(),
    st.dates(),
)
NAMES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["name", "version", "extends", "detection", "rules", "enabled", "severity", "detector", "z_window", "quiet_steps"]),
    st.sampled_from(sorted(SEVERITIES)),
)
CONTENTS = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)), max_leaves=12
)


@hostile(0.5)
@given(content=st.dictionaries(NAMES, CONTENTS, max_size=5))
def test_any_content_is_a_policy_or_is_refused_in_one_line(content: dict[str, Any]) -> None:
    given_back = read_or_refuse(lambda: derive_policy(PRESETS["default"], content, where="lab.toml"))
    if isinstance(given_back, Policy):
        assert given_back.digest.startswith("sha256:")
    else:
        assert given_back.startswith("lab.toml: ")
        assert len(given_back.splitlines()) == 1


PIECES = st.sampled_from(
    [b'name = "a"\n', b"[rules", b"[rules.KLA101]\n", b"]", b"[", b"{", b"=", b'"', b"'''", b"\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"1e999", b"nan",
     b"2026-11-22", b"0x", b"quiet_steps = ", b"-1\n", b"a." * 40, b"[detection]\n", b"extends = ", b'"strict"\n', b"\\u0000", b"#"]
)  # fmt: skip
BYTES = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=12).map(b"".join))


@hostile()
@given(data=BYTES)
def test_any_bytes_are_a_policy_or_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.toml"
    path.write_bytes(data)
    given_back = read_or_refuse(lambda: read_policy(path))
    if isinstance(given_back, Policy):
        assert given_back.name == str(tomllib.loads(data.decode("utf-8-sig"))["name"])
    else:
        assert given_back.startswith(f"{path}: ")
        assert len(given_back.splitlines()) == 1
