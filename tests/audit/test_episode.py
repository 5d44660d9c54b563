from klaudit.audit.episode import Episode, Judgement
from klaudit.records import Finding, Severity


def start_episode(quiet_steps: int = 2) -> Episode:
    return Episode(run_id="r1", code="KLA201", rule="kl_jump", rule_version=1, series="kl", quiet_steps=quiet_steps)


def judge(badness: float, *, severity: Severity = Severity.WARNING, first_step: int | None = None) -> Judgement:
    return Judgement(
        severity=severity, badness=badness, message=f"badness {badness:g}", remedy="look", value=badness, first_step=first_step
    )


def follow(episode: Episode, judgements: list[Judgement | None]) -> list[Finding]:
    observed = (episode.observe_at(step, one, segment=0) for step, one in enumerate(judgements, start=1))
    return [finding for finding in observed if finding is not None]


def test_an_episode_keeps_its_id_and_detected_step_while_it_grows() -> None:
    findings = follow(start_episode(), [judge(1), judge(3), judge(2), judge(1, severity=Severity.CRITICAL)])
    assert len({finding.id for finding in findings}) == 1
    assert {finding.detected_step for finding in findings} == {1}
    assert [finding.value for finding in findings] == [1, 3, 3, 1]
    assert [finding.severity for finding in findings] == ["warning", "warning", "warning", "critical"]
    assert [finding.last_step for finding in findings] == [1, 2, 3, 4]


def test_a_severity_never_falls_within_an_episode() -> None:
    findings = follow(start_episode(), [judge(1, severity=Severity.CRITICAL), judge(9)])
    assert [(finding.severity, finding.message) for finding in findings] == [("critical", "badness 1")] * 2


def test_quiet_steps_end_an_episode_only_in_a_row() -> None:
    findings = follow(start_episode(), [judge(1), None, judge(1), None, None, judge(1)])
    assert [(finding.status, finding.detected_step, finding.last_step) for finding in findings] == [
        ("open", 1, 1),
        ("open", 1, 3),
        ("ended", 1, 3),
        ("open", 6, 6),
    ]


def test_an_episode_may_begin_before_it_could_be_seen() -> None:
    (_, _, finding) = follow(start_episode(), [judge(1), judge(1, first_step=0), judge(1)])
    assert (finding.first_step, finding.detected_step) == (0, 1)
