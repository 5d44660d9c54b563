from datetime import UTC, datetime
from typing import Any

import pytest

import klaudit
from klaudit.callbacks.controller import describe_controller
from klaudit.records import Run
from klaudit.store import Store


@pytest.mark.parametrize(
    ("config", "controller"),
    [
        ({"target_kl": 6.0, "horizon": 10_000}, {"beta": 0.2, "target": 6.0, "horizon": 10_000.0}),
        (
            {"algorithm": {"kl_ctrl": {"type": "adaptive", "target_kl": 0.1, "horizon": 10_000}}},
            {"beta": 0.2, "target": 0.1, "horizon": 10_000.0},
        ),
        ({"algorithm": {"kl_ctrl": {"type": "fixed", "target_kl": 0.1, "horizon": 10_000}}}, None),
        ({"target_kl": None, "horizon": 10_000}, None),
        ({"target_kl": 0.02}, None),
        ({}, None),
    ],
)
def test_the_controller_of_beta_is_what_the_settings_say(config: dict[str, Any], controller: dict[str, Any] | None) -> None:
    run = Run(id="", name="a", started_at=datetime(2026, 11, 22, tzinfo=UTC), beta=0.2, config=config)
    assert describe_controller(run) == controller


def test_a_segment_begins_with_the_controller_that_its_trainer_has(store_url: str, store: Store) -> None:
    for name, config in (("adaptive", {"target": 6.0, "horizon": 10_000}), ("fixed", {})):
        with klaudit.start_run(name, beta=0.2, config=config, store=store_url) as run:
            run.log(step=1, kl=0.1)
    controllers = {name: store.runs.segments(store.runs.get(name).id)[0].controller for name in ("adaptive", "fixed")}
    assert controllers == {"adaptive": {"beta": 0.2, "target": 6.0, "horizon": 10_000.0}, "fixed": None}
