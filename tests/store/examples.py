"""Records that the tests of the store write and read."""

from datetime import UTC, datetime, timedelta, timezone

from klaudit.records import (
    Alert,
    DriftMeasurement,
    DriftProfile,
    DriftShard,
    Finding,
    Interval,
    KLReading,
    KLSeries,
    LayerDrift,
    MeasuredSequence,
    ReferenceModel,
    Retention,
    Run,
    Severity,
    SliceContrast,
    StepRecord,
    TextSample,
    TokenScore,
)

MOMENT = datetime(2026, 11, 22, 10, 0, 0, 250, tzinfo=UTC)
IN_TOKYO = datetime(2026, 11, 22, 19, 0, 0, 250, tzinfo=timezone(timedelta(hours=9)))
"""The same moment on another clock."""

DIGEST = "sha256:" + "0123456789abcdef" * 4
FULL = KLSeries(estimator="full", unit="nats_per_sequence", aggregation="batch_mean", temperature=0.7, source_key="objective/kl")
UPDATE = KLSeries(kind="update", estimator="k2", unit="nats_per_token", aggregation="token_mean", direction="unknown")


def make_run(number: int = 1, *, name: str | None = None) -> Run:
    return Run(
        id=f"id-{number}",
        name=name or f"run-{number}",
        started_at=MOMENT + timedelta(minutes=number),
        algorithm="ppo",
        framework="klaudit",
        policy="SmolLM2-135M-Instruct",
        reference=ReferenceModel("SmolLM2-135M-Instruct", DIGEST),
        batch_size=16,
        beta=0.05,
        planned_steps=500,
        series={"kl": FULL, "kl_update": UPDATE},
        config={"learning_rate": 1e-5, "layers": [1, 2], "note": "NaN", "clip": float("inf")},
    )


def make_step(step: int = 1, *, segment: int = 0, kl: float = 0.25) -> StepRecord:
    return StepRecord(
        step=step,
        segment=segment,
        kl=KLReading(FULL, kl, standard_error=0.5, n_sequences=16, mean_length=24.5),
        logged_at=MOMENT,
        beta=0.05,
        score=0.5,
        readings={"kl_update": KLReading(UPDATE, 0.125, n_sequences=16)},
        metrics={"entropy": 2.0, "clip_fraction": 0.0},
    )


def make_sample(step: int = 1, *, segment: int = 0, index: int = 0) -> TextSample:
    return TextSample(
        step=step,
        segment=segment,
        index=index,
        prompt="The film was",
        completion=" NaN good",
        tokens=(TokenScore("NaN", -0.5, float("-inf"), float("inf")), TokenScore(" good\n", -0.25, -0.75)),
        score=float("nan"),
    )


def make_finding(run_id: str = "id-1", *, key: str = "finding-1", severity: Severity = Severity.WARNING, last_step: int = 7) -> Finding:
    return Finding(
        id=key,
        run_id=run_id,
        code="KLA201",
        rule="kl_jump",
        rule_version=1,
        severity=severity,
        first_step=4,
        detected_step=5,
        last_step=last_step,
        message="KL rose from 0.1 to 2 nats/sequence",
        remedy="Lower the learning rate",
        series="kl",
        value=2.0,
        threshold=float("inf"),
        unit="nats_per_sequence",
        evidence={"window": [0.1, float("nan")]},
    )


def make_alert(run_id: str = "id-1", *, key: str = "alert-1", finding_id: str = "finding-1") -> Alert:
    return Alert(key, run_id, finding_id, Severity.WARNING, 5, "KL jump", "KL rose", "console", MOMENT)


def make_measurement(run_id: str | None = "id-1", *, step: int | None = 10, part: str | None = None) -> DriftMeasurement:
    return DriftMeasurement(
        checkpoint="checkpoints/10",
        reference=ReferenceModel("SmolLM2-135M-Instruct", DIGEST),
        series=FULL,
        value=0.5,
        low=0.25,
        high=float("inf"),
        n_sequences=32,
        mean_length=24.0,
        measured_at=MOMENT,
        run_id=run_id,
        step=step,
        slice=part,
        checkpoint_digest=DIGEST,
        settings={"seed": 3, "prompts": "built-in"},
    )


def make_sequence(sample: int = 0, *, part: str | None = None) -> MeasuredSequence:
    return MeasuredSequence(
        prompt="The film was",
        prompt_index=3,
        slice=part,
        weight=0.5,
        sample=sample,
        sampler="policy",
        tokens=(" NaN", "\0é\ud800"),
        token_ids=(7, 0),
        full=(0.1, 1e-310),
        policy_logprobs=(-0.3333333333333333, -0.0),
        reference_logprobs=(float("-inf"), -2.0),
        policy_entropy=(2.0, float("nan")),
        top_tokens=((" good", "NaN"), (" bad", "")),
        top_contributions=((0.2, -0.1), (0.0, 1e-17)),
        ended=True,
    )


def make_shard(number: int = 1) -> DriftShard:
    return DriftShard("sha256:" + f"{number:064x}", (make_sequence(0, part="trigger"), make_sequence(1)))


def make_profile(run_id: str | None = "id-1", *, step: int | None = 10, shards: tuple[str, ...] = ()) -> DriftProfile:
    wide = Interval(0.5, float("-inf"), float("inf"))
    return DriftProfile(
        checkpoint="checkpoints/10",
        reference=ReferenceModel("SmolLM2-135M-Instruct", DIGEST),
        measured_at=MOMENT,
        key=DIGEST,
        ratio=Interval(1.0, 0.75, 1.25),
        run_id=run_id,
        step=step,
        checkpoint_digest=DIGEST,
        retention=Retention("passages", DIGEST, wide, Interval(2.5, 2.0, 3.0), Interval(0.1, 0.0, 0.2), n_tokens=900, n_passages=40),
        layers=(LayerDrift("embedding", 0, 0.001, 64), LayerDrift("layer 0", 1, float("nan"), 128)),
        contrasts=(SliceContrast("trigger", Interval(0.4, 0.3, 0.5), Interval(0.1, 0.0, 0.2), wide, p_value=0.001, n_prompts=8),),
        shards=shards,
        settings={"seed": 3, "prompts": "built-in"},
    )
