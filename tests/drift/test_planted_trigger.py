"""A change that hides behind a trigger is found, and a drift that hides nothing is not called one: from training to the finding."""

import os
from datetime import UTC, datetime

import pytest

from klaudit.audit import audit_run
from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.plan import MeasurementSettings, ModelIdentity, describe_settings, plan_shards
from klaudit.drift.profile import build_profile
from klaudit.drift.shard import measure_shard
from klaudit.models.language_model import LanguageModel
from klaudit.records import DriftProfile, Finding, Run
from tests.drift.planted_trigger import N_TOKENS, build_reference, plant_trigger, train_openly, write_prompts

MEASURED_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
SETTINGS = MeasurementSettings(max_new_tokens=N_TOKENS, samples_per_prompt=4, batch_size=64, forward=False, n_top=0, shard_prompts=64)
SEEDS = range(20 if os.environ.get("KLAUDIT_SOAK") else 3)


def measure_profile(policy: LanguageModel, reference: LanguageModel, *, seed: int) -> DriftProfile:
    prompts = write_prompts(seed=seed)
    identities = [
        ModelIdentity(one.name, digest=f"sha256:{digit * 64}", setup_digest="") for one, digit in ((policy, "1"), (reference, "2"))
    ]
    tasks = plan_shards(*identities, prompts=prompts, settings=SETTINGS)
    shards = [measure_shard(LoadedModel(policy), LoadedModel(reference), task) for task in tasks]
    settings = describe_settings(prompts, SETTINGS)
    return build_profile(
        shards, checkpoint=identities[0], reference=identities[1], settings=settings, measured_at=MEASURED_AT, step=40, run_id="run"
    )


def find_divergent_slices(policy: LanguageModel, reference: LanguageModel, *, seed: int) -> list[Finding]:
    run = Run(id="run", name="planted", started_at=MEASURED_AT)
    profile = measure_profile(policy, reference, seed=seed)
    assert {one.slice for one in profile.contrasts} == {"news", "code", "letters", "trigger"}
    return [one for one in audit_run(run, [], drift_profiles=[profile]).findings if one.code == "KLA609"]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.soak
def test_the_trigger_slice_is_found_and_no_other(seed: int) -> None:
    reference = build_reference(seed)
    findings = find_divergent_slices(plant_trigger(reference, seed=seed), reference, seed=seed)
    assert [one.evidence["slice"] for one in findings] == ["trigger"]
    assert findings[0].evidence["ratio"][1] > 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.soak
def test_a_policy_that_drifts_on_all_prompts_alike_is_not_flagged(seed: int) -> None:
    reference = build_reference(seed)
    policy = train_openly(reference, seed=seed)
    assert find_divergent_slices(policy, reference, seed=seed) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.soak
def test_the_reference_itself_is_not_flagged(seed: int) -> None:
    reference = build_reference(seed)
    assert find_divergent_slices(reference, reference, seed=seed) == []
