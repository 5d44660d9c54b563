"""Measure the drift of checkpoints, and keep every part of it as soon as it is measured."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klaudit.drift.passages import Passages
from klaudit.drift.plan import MeasurementSettings, ModelIdentity, Progress, ShardTask, describe_settings, plan_shards
from klaudit.drift.prompt_set import PromptSet
from klaudit.errors import InvalidConfig, MissingExtra, ModelNotFound, StoreError
from klaudit.records import DriftMeasurement, DriftProfile, DriftShard, LayerDrift, Retention
from klaudit.store import Store

if TYPE_CHECKING:
    from klaudit.drift.checkpoints import CheckpointSource
    from klaudit.drift.executor import Executor
    from klaudit.drift.precision import Precision

MOST_GROWTH = 4
"""How many times as many completions a round of `within` may end with as it began with: the first rounds know little of the spread."""
MOST_SAMPLES = 1024
"""Completions a prompt that `within` goes up to."""

Tell = Callable[[str], None]
"""Takes a sentence for the person who waits."""


@dataclass(frozen=True, slots=True)
class DriftRequest:
    """What is to be measured.

    Raises:
        InvalidConfig: no checkpoint; `within` that is not between 0 and 1.
    """

    reference: str
    """Path, hub id, or the packaged model's name."""
    checkpoints: tuple["CheckpointSource", ...]
    prompts: PromptSet
    settings: MeasurementSettings = field(default_factory=MeasurementSettings)
    passages: Passages | None = None
    """Text of the retention; None: not measured."""
    within: float | None = None
    """Sample until half the 95% interval of `full` is at most this share of its value; None: once."""
    with_matrix: bool = False
    """Whether the checkpoints are compared with each other too."""
    allow_pickle: bool = False
    run_id: str | None = None

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise InvalidConfig("expected at least one checkpoint to measure; got none")
        if self.within is not None and not 0 < self.within < 1:
            raise InvalidConfig(
                f"expected the interval's half-width as a share of the value between 0 and 1, such as 0.1 for 10%; got {self.within!r}"
            )


@dataclass(frozen=True, slots=True)
class MeasuredCheckpoint:
    """One checkpoint with all that is known of it now."""

    measurements: tuple[DriftMeasurement, ...]
    profile: DriftProfile
    is_known: bool
    """Whether all of it was stored already."""


@dataclass(frozen=True, slots=True)
class MeasuredDrift:
    """What came of a request."""

    checkpoints: tuple[MeasuredCheckpoint, ...]
    """In the order of the request."""
    distances: tuple[DriftMeasurement, ...] = ()
    """KL between checkpoints, where asked for."""

    @property
    def measurements(self) -> tuple[DriftMeasurement, ...]:
        """Of all checkpoints."""
        return tuple(one for checkpoint in self.checkpoints for one in checkpoint.measurements)

    @property
    def profiles(self) -> tuple[DriftProfile, ...]:
        """Of all checkpoints."""
        return tuple(one.profile for one in self.checkpoints)


@dataclass(frozen=True, slots=True)
class DriftPlan:
    """A request whose models were found."""

    request: DriftRequest
    reference: ModelIdentity
    checkpoints: tuple[ModelIdentity, ...]
    """In the order of the request."""


def list_run_checkpoints(store: Store, run_id: str) -> tuple["CheckpointSource", ...]:
    """The run's checkpoints whose files are still there, by step; of one directory that was saved twice, the later.

    Only an absolute path says where files are: a replayed run knows bare names.

    Raises:
        ModelNotFound: the run saved none, or none is left on disk.
    """
    from klaudit.drift.checkpoints import CheckpointSource

    saved = store.checkpoints.list(run_id)
    if not saved:
        raise ModelNotFound("the run has no checkpoints: let its trainer save some, or name a directory with --checkpoints")
    latest = {Path(one.path): one.step for one in saved}
    present = [CheckpointSource(path, step) for path, step in latest.items() if path.is_absolute() and path.is_dir()]
    if not present:
        raise ModelNotFound(f"none of the run's {len(saved)} checkpoints is on disk any more; the first was {saved[0].path}")
    return tuple(sorted(present, key=lambda one: (one.step or 0, one.path)))


def plan_drift(request: DriftRequest) -> DriftPlan:
    """Find every model that a request names, and refuse what cannot be measured; no weights are loaded, and nothing is written.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ModelNotFound: a model is not where it was said to be, or has no tokenizer.
        UnsupportedModel: pickles that may not be loaded.
        InvalidConfig: fewer than two different prompts, a prompt longer than the context, a text too short, a checkpoint of another tokenizer or
            vocabulary than the reference.
    """
    try:
        from klaudit.drift.admission import require_measurable
        from klaudit.drift.identity import identify_model
    except ImportError as error:
        raise MissingExtra("Measuring drift", "train") from error
    reference = identify_model(request.reference, allow_pickle=request.allow_pickle)
    checkpoints = [identify_model(one.path, allow_pickle=request.allow_pickle) for one in request.checkpoints]
    plan = DriftPlan(request, reference, tuple(checkpoints))
    # What cannot be planned shows before anything is loaded.
    plan_shards(checkpoints[0], reference, prompts=request.prompts, settings=request.settings)
    if request.with_matrix:
        _plan_matrix(plan)
    require_measurable(
        checkpoints,
        reference=reference,
        prompts=request.prompts,
        passages=request.passages,
        max_new_tokens=request.settings.max_new_tokens,
        allow_pickle=request.allow_pickle,
    )
    return plan


def measure_drift(
    plan: DriftPlan, store: Store, *, executor: "Executor | None" = None, on_progress: Progress | None = None, tell: Tell | None = None
) -> MeasuredDrift:
    """Measure what the store does not hold yet; each shard is kept as soon as it is measured, each profile with its measurements together.

    Interrupted anywhere and called again, it continues, and gives the same numbers. What was measured completely is given back as it is.

    Args:
        plan: from `plan_drift`.
        store: that keeps it.
        executor: who measures; None: this process.
        on_progress: called with sequences done and sequences in all, those that the store held from the beginning included.
        tell: what was known already, and what became of `within`.

    Raises:
        InvalidConfig: a checkpoint has another tokenizer or vocabulary than the reference; a prompt longer than the context.
        ModelNotFound: a model is not where it was.
        OutOfMemory: not even one sequence fits.
        StoreError: the store cannot be used, or holds a spoiled shard.
    """
    from klaudit.drift.executor import LocalExecutor

    campaign = _Campaign(plan, store, executor or LocalExecutor(), on_progress or (lambda done, total: None), tell or (lambda line: None))
    # In one process checkpoint after checkpoint, because two models fit; workers elsewhere get all there is to do at once.
    everyone = tuple(range(len(plan.checkpoints)))
    waves = [(one,) for one in everyone] if executor is None else [everyone]
    measured = tuple(one for wave in waves for one in campaign.measure(wave))
    return MeasuredDrift(measured, campaign.measure_distances() if plan.request.with_matrix else ())


def _plan_matrix(plan: DriftPlan) -> tuple[ShardTask, ...]:
    from klaudit.drift.matrix import plan_matrix

    request = plan.request
    return plan_matrix(plan.checkpoints, prompts=request.prompts, settings=request.settings, allow_pickle=request.allow_pickle)


class _Campaign:
    """One call of `measure_drift`."""

    def __init__(self, plan: DriftPlan, store: Store, executor: "Executor", on_progress: Progress, tell: Tell) -> None:
        self._plan = plan
        self._request = plan.request
        self._store = store
        self._executor = executor
        self._on_progress = on_progress
        self._tell = tell
        run_id = plan.request.run_id
        self._measurements = store.drift.list(run_id)
        self._profiles = store.drift.list_profiles(run_id)
        self._others = store.drift.list_profiles(None) if run_id is not None else ()
        self._expected: list[ShardTask] = []
        self._done: set[str] = set()
        self._first = [self._plan_round(index, (0, plan.request.settings.samples_per_prompt)) for index in range(len(plan.checkpoints))]
        self._matrix = _plan_matrix(plan) if plan.request.with_matrix else ()
        self._expect([*(task for tasks in self._first for task in tasks), *self._matrix])
        if 0 < self._count_done() < self._n_total:
            tell(f"{self._count_done():,} of {self._n_total:,} sequences were measured before: going on from there")

    def measure(self, wave: Sequence[int]) -> Iterator[MeasuredCheckpoint]:
        """Measure some checkpoints, by their place in the plan, in rounds of more samples until each is as sure as was asked for."""
        tasks = {index: self._first[index] for index in wave}
        self._execute([task for index in wave for task in tasks[index]])
        unsure = list(wave) if self._request.within is not None else []
        while grown := {index: more for index in unsure if (more := self._grow(index, tasks[index]))}:
            more_tasks = [task for more in grown.values() for task in more]
            self._expect(more_tasks)
            self._execute(more_tasks)
            tasks |= {index: (*tasks[index], *more) for index, more in grown.items()}
            unsure = list(grown)
        for index in wave:
            yield self._conclude(index, tasks[index])

    def measure_distances(self) -> tuple[DriftMeasurement, ...]:
        """KL of every checkpoint to every other; what the store holds already is given back as it is."""
        from klaudit.drift.summary import summarise_shards

        if not self._matrix:
            return ()
        self._execute(self._matrix)
        steps = dict(zip(self._plan.checkpoints, (one.step for one in self._request.checkpoints), strict=True))
        settings = describe_settings(self._request.prompts, self._request.settings)
        found: list[DriftMeasurement] = []
        for pair in dict.fromkeys((task.checkpoint, task.reference) for task in self._matrix):
            found += summarise_shards(
                self._read([task for task in self._matrix if (task.checkpoint, task.reference) == pair]),
                checkpoint=pair[0],
                reference=pair[1],
                settings=settings,
                measured_at=datetime.now(UTC),
                step=steps[pair[0]],
                run_id=self._request.run_id,
            )
        return self._store.drift.add_distances(found)

    def _plan_round(self, index: int, samples: tuple[int, int]) -> tuple[ShardTask, ...]:
        request, plan = self._request, self._plan
        # Further rounds are for the interval of the policy's own samples.
        settings = request.settings if samples[0] == 0 else replace(request.settings, forward=False)
        policy, reference = plan.checkpoints[index], plan.reference
        return plan_shards(
            policy, reference, prompts=request.prompts, settings=settings, samples=samples, allow_pickle=request.allow_pickle
        )

    def _expect(self, tasks: Sequence[ShardTask]) -> None:
        """Count tasks in, those that are done already too."""
        self._expected += tasks
        self._note_done(self._store.drift.list_stored([task.key for task in tasks]))

    @property
    def _n_total(self) -> int:
        return sum(task.n_sequences for task in self._expected)

    def _count_done(self) -> int:
        """Sequences; checkpoints of the same weights have their shards in common."""
        return sum(task.n_sequences for task in self._expected if task.key in self._done)

    def _note_done(self, keys: Iterable[str]) -> None:
        self._done.update(keys)
        self._on_progress(self._count_done(), self._n_total)

    def _execute(self, tasks: Sequence[ShardTask]) -> None:
        """Measure and keep what the store does not hold."""
        stored = self._store.drift.list_stored([task.key for task in tasks])
        if meanwhile := stored - self._done:
            self._note_done(meanwhile)
        missing = {task.key: task for task in tasks if task.key not in stored}
        if not missing:
            return
        before = self._count_done()
        for shard in self._executor.execute(
            list(missing.values()), on_progress=lambda done, _: self._on_progress(before + done, self._n_total)
        ):
            self._store.drift.add_shard(shard, run_id=self._request.run_id)
        self._note_done(missing)

    def _read(self, tasks: Sequence[ShardTask]) -> list[DriftShard]:
        found = self._store.drift.find_shards([task.key for task in tasks])
        for task in tasks:
            _require_sequences(found[task.key], task)
        return [found[task.key] for task in tasks]

    def _grow(self, index: int, tasks: Sequence[ShardTask]) -> tuple[ShardTask, ...]:
        """The next round of a checkpoint; none where it is sure enough, or where samples cannot make it so."""
        from klaudit.drift.precision import judge_precision

        within, n_samples = self._request.within or 0.0, tasks[-1].samples[1]
        precision = judge_precision(self._read(tasks), within=within)
        needed = precision.samples_needed
        is_possible = not precision.is_reached and needed is not None and n_samples < MOST_SAMPLES
        if not is_possible:
            self._tell(f"{self._request.checkpoints[index].path.name}: {describe_precision(precision, within=within, n_samples=n_samples)}")
        if not is_possible or needed is None:
            return ()
        least, most = n_samples + math.ceil(n_samples / 4), min(n_samples * MOST_GROWTH, MOST_SAMPLES)
        return self._plan_round(index, (n_samples, min(max(needed, least), most)))

    def _conclude(self, index: int, tasks: Sequence[ShardTask]) -> MeasuredCheckpoint:
        """Shards to measurements and a profile, kept together unless they are stored already."""
        keys = tuple(task.key for task in tasks)
        akin = [one for one in (*self._profiles, *self._others) if not set(keys).isdisjoint(one.shards)]
        passages = self._request.passages
        retention = next((one.retention for one in reversed(akin) if has_retention(one, passages)), None) if passages else None
        if (known := self._recall(index, keys, passages)) is not None:
            return known
        if passages is not None and retention is None:
            retention = self._measure_retention(index, passages)
        layers = next((one.layers for one in reversed(akin) if one.layers), None) or self._compare_layers(index)
        return self._keep(index, tasks, retention, layers)

    def _recall(self, index: int, keys: tuple[str, ...], passages: Passages | None) -> MeasuredCheckpoint | None:
        """What is stored of exactly these shards and, where it was asked for, this text, for this checkpoint of this run."""
        source, name = self._request.checkpoints[index], self._plan.checkpoints[index].name
        for profile in reversed(self._profiles):
            has_text = passages is None or has_retention(profile, passages)
            if has_text and (profile.shards, profile.checkpoint, profile.step) == (keys, name, source.step):
                return _restore(profile, self._measurements)
        return None

    def _measure_retention(self, index: int, passages: Passages) -> Retention:
        return self._executor.measure_retention(
            self._plan.checkpoints[index],
            self._plan.reference,
            passages=passages,
            batch_size=self._request.settings.batch_size,
            dtype=self._request.settings.dtype,
            allow_pickle=self._request.allow_pickle,
        )

    def _compare_layers(self, index: int) -> tuple[LayerDrift, ...]:
        from klaudit.models.parameters import compare_layers

        policy, reference = self._plan.checkpoints[index].name, self._plan.reference.name
        return compare_layers(policy, reference, allow_pickle=self._request.allow_pickle)

    def _keep(
        self, index: int, tasks: Sequence[ShardTask], retention: Retention | None, layers: tuple[LayerDrift, ...]
    ) -> MeasuredCheckpoint:
        from klaudit.drift.profile import build_profile
        from klaudit.drift.summary import summarise_shards

        n_samples = max(task.samples[1] for task in tasks)
        about: dict[str, Any] = {
            "checkpoint": self._plan.checkpoints[index],
            "reference": self._plan.reference,
            "settings": describe_settings(self._request.prompts, replace(self._request.settings, samples_per_prompt=n_samples)),
            "measured_at": datetime.now(UTC),
            "step": self._request.checkpoints[index].step,
            "run_id": self._request.run_id,
        }
        shards = self._read(tasks)
        measurements = summarise_shards(shards, **about)
        profile = build_profile(shards, retention=retention, layers=layers, **about)
        kept = self._store.drift.add_profile(profile, measurements)
        if kept is profile:
            return MeasuredCheckpoint(measurements, profile, is_known=False)
        # Another process was faster.
        return _restore(kept, self._store.drift.list(self._request.run_id))


def _restore(profile: DriftProfile, measurements: Iterable[DriftMeasurement]) -> MeasuredCheckpoint:
    """A stored checkpoint, with those of the stored measurements that were made with its profile."""
    own = (profile.checkpoint, profile.step, profile.measured_at)
    made_together = tuple(one for one in measurements if (one.checkpoint, one.step, one.measured_at) == own)
    return MeasuredCheckpoint(made_together, profile, is_known=True)


def _require_sequences(shard: DriftShard, task: ShardTask) -> None:
    """Raise StoreError unless a stored shard holds the completions of its task, each once."""
    held = sorted((one.prompt_index, one.sample, one.sampler, one.prompt) for one in shard.sequences)
    asked = sorted((prompt.index, sample, task.sampler, prompt.text) for prompt in task.prompts for sample in range(*task.samples))
    if held != asked:
        raise StoreError(
            f"expected {len(asked)} completions of its own prompts in the row {task.key} of drift_shards; it holds {len(held)}, or others. "
            "Somebody has changed it: restore the store from a copy, or delete that row and measure again"
        )


def has_retention(profile: DriftProfile, passages: Passages) -> bool:
    """Whether the retention on this very text was measured."""
    return profile.retention is not None and profile.retention.text_digest == passages.digest


def describe_precision(precision: "Precision", *, within: float, n_samples: int) -> str:
    """What became of `within`, for people.

    Args:
        precision: of the last round.
        within: that was asked for, as a share of the value.
        n_samples: completions a prompt.
    """
    sampled = f"with {n_samples:,} completions a prompt"
    if not math.isfinite(precision.relative_half_width):
        return f"the drift cannot be told from 0 {sampled}" if precision.is_reached else f"the drift is no finite number {sampled}"
    reached = f"half the 95% interval is {100 * precision.relative_half_width:.3g}% of the value {sampled}"
    if precision.is_reached:
        return f"{reached}; asked for was {100 * within:.3g}%"
    if precision.samples_needed is None:
        return (
            f"{reached}; no number of completions of these prompts brings it to {100 * within:.3g}%, because the prompts differ. "
            f"About {precision.prompts_needed:,} different prompts would: give them with --prompts"
        )
    return (
        f"{reached}; {100 * within:.3g}% would take about {precision.samples_needed:,} completions a prompt, and at most {MOST_SAMPLES:,} are "
        f"sampled. {_suggest_wider(precision.relative_half_width)}give more prompts with --prompts: about {precision.prompts_needed:,} different "
        f"ones would do with {n_samples:,} completions each"
    )


def _suggest_wider(relative: float) -> str:
    """The narrowest interval of two digits that is reached already; empty where `within` takes none so wide."""
    digits = 1 - math.floor(math.log10(relative))
    share = math.ceil(relative * 10**digits) / 10**digits
    return f"Be content with --ci {share:g}, or " if share < 1 else "To narrow it, "
