"""One rule alone, for simulations that are too long for a whole audit."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from klaudit.audit.observation import Observation, complete_reading, list_wild, name_non_finite
from klaudit.audit.rule import Rule
from klaudit.frontier.point import read_d
from klaudit.records import PRIMARY, Finding, Run, StepRecord


@pytest.fixture(scope="session")
def judge_alone() -> Callable[..., list[Finding]]:
    """`judge_alone(rule, run, steps, **parameters)`: the findings of one rule class over one segment, as they stand in the end."""

    def judge(rule_class: type[Rule[Any]], run: Run, steps: Iterable[StepRecord], **parameters: Any) -> list[Finding]:
        rule = rule_class(run, parameters=rule_class.parameters_model(**parameters))
        key = run.governing_key
        found: dict[str, Finding] = {}
        for step in steps:
            governing = None if key is None else complete_reading(step, key=key, run=run)
            observation = Observation(
                record=step,
                governing=governing if governing is not None and governing.value is not None else None,
                non_finite=name_non_finite(step, names=list_wild(step), first=PRIMARY),
                d=read_d(governing),
            )
            found |= {finding.id: finding for finding in rule.observe(observation)}
        return list(found.values())

    return judge
