"""Every rule on data: `tests/cases/<CODE>.toml` holds runs on which it fires, and runs on which it is quiet.

A case:

    [[case]]
    name = "a sentence that says what happens"
    fires = [{ severity = "warning", detected_step = 12 }]      # the findings of the file's rule, in order; [] or left out: quiet
    not_run = "part of the reason under coverage.rules_not_run" # optional
    run = { batch_size = 64, kl = { kind = "reference", estimator = "k1", unit = "nats_per_sequence" } }   # a klaudit-steps/1 header
    policy = { window = 20 }                                    # optional: parameters of the rule; `severity` and `enabled` as in a file
    budgets = [{ limit = 2.0, unit = "nats_per_sequence" }]     # optional: KLBudget
    segments = [{ index = 1, resumed_from_step = 30 }]          # optional: Segment
    drift = [{ step = 0, value = 0.1, low = 0.08, high = 0.12 }]  # optional: DriftMeasurement, full, nats per sequence, mean length 10
    profiles = [{ step = 20, contrasts = [{ slice = "a", ... }] }]  # optional: DriftProfile; an Interval is [value, low, high]
    limit_changes = [{ changed_at = 2026-11-22T10:05:30Z, before = { limit = 2.0, unit = "nats_per_sequence" } }]   # optional: LimitChange

    [case.steps]                                                # a column a field; one number stands for every step
    step = [1, 2, 3]                                            # left out: 0, 1, 2 ...
    kl = [0.1, 0.2, nan]
    metrics.entropy = [2.0, 2.0, "absent"]

`fires` names any field of a finding that is to be held: `severity`, `detected_step`, `first_step`, `last_step`, `series`, `value`
(to 1e-6, relative), `message` (a part of it).
"""

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from klaudit.audit import Audit, audit_run, read_policy
from klaudit.audit.rules import RULES
from klaudit.exchange.steps_file import FORMAT, read_run, read_step
from klaudit.records import (
    DriftMeasurement,
    DriftProfile,
    Finding,
    Interval,
    KLBudget,
    KLSeries,
    LimitChange,
    ReferenceModel,
    Retention,
    Segment,
    SliceContrast,
)
from klaudit.records.non_finite import encode_float

CASES = Path(__file__).parent.parent / "cases"
BEGAN_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
ABSENT = "absent"
DIGEST = "sha256:" + "0" * 64
REFERENCE = ReferenceModel("reference", DIGEST)


@dataclass(frozen=True)
class Case:
    code: str
    content: Mapping[str, Any]

    @property
    def fires(self) -> list[dict[str, Any]]:
        return list(self.content.get("fires", []))


def read_cases() -> Iterator[Case]:
    for path in sorted(CASES.glob("KLA*.toml")):
        for content in tomllib.loads(path.read_text(encoding="utf-8"))["case"]:
            yield Case(code=path.stem, content=content)


ALL_CASES = list(read_cases())


def list_steps(columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of a klaudit-steps/1 file that the columns stand for."""
    flat = {name: column for name, column in columns.items() if name not in ("metrics", "readings")}
    nested = {(group, name): column for group in ("metrics", "readings") for name, column in columns.get(group, {}).items()}
    n_steps = max(len(column) for column in (*flat.values(), *nested.values()) if isinstance(column, list))
    for index in range(n_steps):
        line: dict[str, Any] = {"step": index, "time": BEGAN_AT.isoformat()}
        line |= {name: pick(column, index) for name, column in flat.items() if pick(column, index) != ABSENT}
        for (group, name), column in nested.items():
            if pick(column, index) != ABSENT:
                line.setdefault(group, {})[name] = pick(column, index)
        yield line


def pick(column: Any, index: int) -> Any:
    value = column[index] if isinstance(column, list) else column
    return encode_float(value) if isinstance(value, float) and not math.isfinite(value) else value


def audit_case(case: Case, tmp_path: Path) -> Audit:
    header = {"format": FORMAT, "run": {"name": "case"}, **case.content.get("run", {})}
    run = read_run(header, case.code, began_at=BEGAN_AT)
    steps = [read_step(line, case.code, run=run) for line in list_steps(case.content["steps"])]
    policy = tmp_path / "policy.toml"
    settings = "\n".join(f"{name} = {format_toml(value)}" for name, value in case.content.get("policy", {}).items())
    policy.write_text(f'name = "case"\n[rules.{case.code}]\n{settings}\n', encoding="utf-8")
    budgets = [KLBudget(**{"id": f"budget-{index}", **budget}) for index, budget in enumerate(case.content.get("budgets", []))]
    segments = [Segment(**{"run_id": run.id, "started_at": BEGAN_AT, **segment}) for segment in case.content.get("segments", [])]
    limit_changes = [read_limit_change(change) for change in case.content.get("limit_changes", [])]
    return audit_run(
        run,
        steps,
        policy=read_policy(policy),
        budgets=budgets,
        segments=segments,
        drift_measurements=[read_measurement(one) for one in case.content.get("drift", [])],
        drift_profiles=[read_profile(one) for one in case.content.get("profiles", [])],
        limit_changes=limit_changes,
    )


def read_measurement(content: Mapping[str, Any]) -> DriftMeasurement:
    """Full-vocabulary drift of a checkpoint."""
    series = KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean", temperature=1.0)
    named = {"checkpoint": f"checkpoint-{content['step']}", "reference": REFERENCE, "n_sequences": 64, "mean_length": 10.0}
    return DriftMeasurement(**{"series": series, "measured_at": BEGAN_AT, **named, **content})


def read_profile(content: Mapping[str, Any]) -> DriftProfile:
    """A DriftProfile whose parts are tables."""
    retention = content.get("retention")
    named = {"checkpoint": f"checkpoint-{content['step']}", "reference": REFERENCE, "measured_at": BEGAN_AT, "key": DIGEST}
    parts = {
        "retention": None if retention is None else Retention(**read_intervals({"text_digest": DIGEST, **retention})),
        "contrasts": tuple(SliceContrast(**read_intervals(one)) for one in content.get("contrasts", [])),
    }
    return DriftProfile(**{"ratio": Interval(1.0, 0.9, 1.1), **named, **content, **parts})


def read_intervals(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: Interval(*value) if isinstance(value, list) else value for name, value in content.items()}


def read_limit_change(change: Mapping[str, Any]) -> LimitChange:
    """A LimitChange whose budgets are tables."""
    budgets = {name: KLBudget(**change[name]) for name in ("before", "after") if name in change}
    what = tuple(change.get("what", ("removed",)))
    return LimitChange(**{**change, **budgets, "what": what})


def format_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def meets(finding: Finding, wanted: Mapping[str, Any]) -> bool:
    """Whether a finding has what a case says of it."""
    for name, value in wanted.items():
        found = getattr(finding, name)
        if name == "message":
            held = value in found
        elif isinstance(value, float):
            held = found is not None and math.isclose(found, value, rel_tol=1e-6)
        else:
            held = found == value
        if not held:
            return False
    return True


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: f"{case.code}: {case.content['name']}")
def test_a_case_gives_what_it_says(case: Case, tmp_path: Path) -> None:
    audit = audit_case(case, tmp_path)
    found = [finding for finding in audit.findings if finding.code == case.code]
    told = [(one.severity.value, one.detected_step, one.message) for one in found]
    assert len(found) == len(case.fires), told
    assert all(meets(finding, wanted) for finding, wanted in zip(found, case.fires, strict=True)), told
    if "not_run" in case.content:
        reasons = [silent.why for silent in audit.coverage.rules_not_run if silent.code == case.code]
        assert any(case.content["not_run"] in why for why in reasons), reasons


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_every_rule_has_a_firing_and_a_quiet_case(code: str) -> None:
    cases = [case for case in ALL_CASES if case.code == code]
    assert any(case.fires for case in cases), f"no case in tests/cases/{code}.toml on which {code} fires"
    assert any(not case.fires for case in cases), f"no case in tests/cases/{code}.toml on which {code} is quiet"
