"""Tasks for models that are in memory already."""

from typing import Any

from klaudit.drift.loaded_model import LoadedModel
from klaudit.drift.plan import MeasurementSettings, ModelIdentity, ShardTask, plan_shards
from klaudit.drift.prompt_set import PromptSet
from klaudit.drift.shard import measure_shard
from klaudit.models.language_model import LanguageModel
from klaudit.records import DriftShard, MeasuredSequence

PROMPTS = PromptSet("tiny", ("a", "b c", "d e f", "g", "a a b", "c g", "e", "f d"))
N_TOKENS = 3


def plan_tasks(*, prompts: PromptSet = PROMPTS, samples_per_prompt: int = 32, **settings: Any) -> tuple[ShardTask, ...]:
    """Of two models that were never digested."""
    models = [ModelIdentity(name, f"sha256:{digit * 64}", f"sha256:{'0' * 64}") for name, digit in (("policy", "1"), ("reference", "2"))]
    chosen: dict[str, Any] = {"max_new_tokens": N_TOKENS, "samples_per_prompt": samples_per_prompt} | settings
    return plan_shards(*models, prompts=prompts, settings=MeasurementSettings(**chosen))


def measure_tasks(policy: LanguageModel, reference: LanguageModel, **options: Any) -> list[DriftShard]:
    loaded = LoadedModel(policy), LoadedModel(reference)
    return [measure_shard(*loaded, task) for task in plan_tasks(**options)]


def measure_by_name(policy: LanguageModel, reference: LanguageModel, **options: Any) -> dict[tuple[str, int, int], MeasuredSequence]:
    """Sequences by sampler, place of the prompt, and sample."""
    shards = measure_tasks(policy, reference, **options)
    return {(one.sampler, one.prompt_index, one.sample): one for shard in shards for one in shard.sequences}
