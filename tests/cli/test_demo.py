from pathlib import Path

import pytest

from klaudit.store import open_store
from tests.cli.conftest import Command


@pytest.mark.model
@pytest.mark.timeout(900)
def test_the_demo_walks_from_training_to_a_report(klaudit: Command) -> None:
    outcome = klaudit("demo", "--steps", 2, "--healthy")
    assert outcome.code == 0, outcome.err
    assert "4 of 4" in outcome.err
    with open_store("sqlite:///klaudit.db") as store:
        found = store.runs.get("demo")
        assert (found.status, found.governing_key, found.policy) == ("finished", "kl", "SmolLM2-135M-Instruct")
        assert found.reference is not None
        assert found.reference.digest is not None
        first, second = store.steps.list(found.id)
        # The policy is its own reference until the first update.
        assert first.kl.value == 0.0
        assert second.kl.value is not None
        assert second.kl.value > 0
        measured = store.drift.list(found.id)
        assert [(one.step, one.series.estimator) for one in measured] == [(s, e) for s in (1, 2) for e in ("full", "k1", "k3")]
        assert all(one.reference.digest == found.reference.digest for one in measured)
    assert "KL to reference (full, nats/sequence)" in Path("runs/demo/report.html").read_text()
