from typing import Any

import pytest

from klaudit.errors import InvalidRecord
from klaudit.records import Finding, Severity, identify_finding

EPISODE: dict[str, Any] = {"run_id": "run", "segment": 0, "code": "KLA201", "series": "kl", "detected_step": 7}


def make_finding(**changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "id": "f",
        "run_id": "run",
        "code": "KLA201",
        "rule": "kl_jump",
        "rule_version": 1,
        "severity": Severity.WARNING,
        "first_step": 4,
        "detected_step": 5,
        "last_step": 6,
        "message": "m",
        "remedy": "r",
    }
    return Finding(**{**fields, **changes})


def test_the_id_of_an_episode_never_changes_between_versions() -> None:
    # Stored findings of older versions are found again by this id: sha256 of "run\x1f0\x1fKLA201\x1fkl\x1f7\x1f", first 16 digits (coreutils sha256sum).
    assert identify_finding(**EPISODE) == "81e0bcc22158c11f"


@pytest.mark.parametrize(
    "change", [{"run_id": "other"}, {"segment": 1}, {"code": "KLA202"}, {"series": None}, {"detected_step": 8}, {"subject": "budget-2"}]
)
def test_another_episode_has_another_id(change: dict[str, Any]) -> None:
    assert identify_finding(**{**EPISODE, **change}) != identify_finding(**EPISODE)


@pytest.mark.parametrize("steps", [(6, 5, 6), (4, 7, 6)])
def test_a_finding_is_detected_between_its_first_and_its_last_step(steps: tuple[int, int, int]) -> None:
    first, detected, last = steps
    with pytest.raises(InvalidRecord, match=f"{first}, {detected}, {last}"):
        make_finding(first_step=first, detected_step=detected, last_step=last)


def test_a_finding_is_open_or_ended() -> None:
    with pytest.raises(InvalidRecord, match="open, ended; got 'closed'"):
        make_finding(status="closed")


def test_severities_rank_from_info_to_critical() -> None:
    assert [severity.rank for severity in (Severity.INFO, Severity.WARNING, Severity.CRITICAL)] == [0, 1, 2]
