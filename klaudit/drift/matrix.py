"""Each checkpoint against each other."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

from klaudit.drift.plan import MeasurementSettings, ModelIdentity, ShardTask, plan_shards
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig


def plan_matrix(
    checkpoints: Sequence[ModelIdentity], *, prompts: PromptSet, settings: MeasurementSettings, allow_pickle: bool = False
) -> tuple[ShardTask, ...]:
    """The tasks of every ordered pair of different checkpoints: KL(`task.checkpoint` || `task.reference`).

    Its shards come from an Executor like all others, and `summarise_shards` makes a pair's rows of them. Each checkpoint writes its completions
    once, and all others score them.

    Args:
        checkpoints: two or more; the same weights twice count once.
        prompts: at least two different ones.
        settings: `forward` has no part in it, since the other direction is the other pair.
        allow_pickle: as in `ShardTask`.

    Raises:
        InvalidConfig: fewer than two different checkpoints or prompts.
    """
    different: dict[tuple[str, str], ModelIdentity] = {}
    for one in checkpoints:
        different.setdefault((one.digest, one.setup_digest), one)
    if len(different) < 2:
        raise InvalidConfig(f"A matrix needs at least 2 different checkpoints; got {len(checkpoints)}, of which {len(different)} differ")
    reverse = replace(settings, forward=False)
    return tuple(
        task
        for policy, reference in permutations(different.values(), 2)
        for task in plan_shards(policy, reference, prompts=prompts, settings=reverse, allow_pickle=allow_pickle)
    )
