"""The tables. Migrations make them; a test holds both to be the same, and `db/schema.sql` shows them with these comments."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from klaudit.store.column_types import JSONText, Timestamp

SCHEMA_REVISION = "0001"
"""The migration that makes these tables."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def float_columns(name: str, comment: str) -> tuple[Column[float], Column[str]]:
    """A float that may be NaN or infinite: its value, and which kind of float it is."""
    return (
        Column(name, Double, comment=comment),
        Column(f"{name}_kind", String(6), comment="finite, nan, inf or -inf"),
    )


def run_id_column(*, nullable: bool = False, comment: str = "runs.id") -> Column[str]:
    """The run that a row belongs to; the row goes when the run goes."""
    return Column("run_id", String(64), ForeignKey("runs.id", ondelete="CASCADE"), nullable=nullable, comment=comment)


def series_columns() -> tuple[Column[Any], ...]:
    """What a stream of KL numbers is."""
    return (
        Column("kind", String(16), nullable=False, comment="reference, update, mismatch, baseline or unknown"),
        Column("estimator", String(16), nullable=False, comment="k1, k2, k3, full or unknown"),
        Column("unit", String(32), nullable=False, comment="nats_per_token, nats_per_sequence or unknown"),
        Column("aggregation", String(16), nullable=False, comment="batch_mean, token_mean, window_mean or unknown"),
        Column("direction", String(16), nullable=False, comment="reverse: KL(policy || reference); forward; unknown"),
        Column("temperature", Double, comment="Sampling temperature at which both distributions were scored"),
        Column("source_key", Text, comment="The trainer's own name of the number"),
    )


klaudit_meta = Table(
    "klaudit_meta",
    metadata,
    Column("name", String(32), primary_key=True, comment="created_by or upgraded_by"),
    Column("value", Text, nullable=False, comment="Version of klaudit"),
    comment="Which klaudit made this store, and which upgraded it last",
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("status", String(16), nullable=False, comment="running, finished or failed"),
    Column("started_at", Timestamp, nullable=False, comment="UTC, ISO 8601, like every time here"),
    Column("finished_at", Timestamp),
    Column("algorithm", Text, comment="Such as ppo"),
    Column("framework", Text, comment="The trainer that the numbers come from"),
    Column("policy", Text, comment="Name of the model that is trained"),
    Column("reference_name", Text, comment="Name of the frozen model that KL is measured against"),
    Column("reference_digest", String(71), comment="sha256: and 64 hex digits over its weights"),
    Column("batch_size", Integer, comment="Sequences a step"),
    *float_columns("beta", "KL penalty coefficient at the start"),
    Column("planned_steps", BigInteger),
    Column("config", JSONText, nullable=False, comment="JSON: the trainer's arguments"),
    comment="Training runs, as they were declared when they began",
)

segments = Table(
    "segments",
    metadata,
    run_id_column(),
    Column("segment", Integer, nullable=False, comment="0 for the first stretch"),
    Column("started_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("host", Text),
    Column("pid", BigInteger, comment="Process id of the trainer on that host"),
    Column("resumed_from_step", BigInteger),
    PrimaryKeyConstraint("run_id", "segment"),
    comment="Uninterrupted stretches of a run; a resume starts the next",
)

kl_series = Table(
    "kl_series",
    metadata,
    run_id_column(),
    Column("key", String(255), nullable=False, comment="kl for steps.kl, else a key of steps.readings"),
    *series_columns(),
    PrimaryKeyConstraint("run_id", "key"),
    comment="What each KL of a run's steps is: a KL never travels alone",
)

steps = Table(
    "steps",
    metadata,
    run_id_column(),
    Column("segment", Integer, nullable=False),
    Column("step", BigInteger, nullable=False, comment="The trainer's global step"),
    Column("logged_at", Timestamp, nullable=False),
    *float_columns("kl", "The primary reading, in the unit of the run's kl_series with key kl"),
    *float_columns("kl_se", "Standard error of kl over the batch, in the same unit"),
    Column("kl_not_measured", Text, comment="Why there is no kl"),
    *float_columns("beta", "KL penalty coefficient in force at this step"),
    *float_columns("score", "Raw reward, mean over the batch"),
    Column("n_sequences", Integer, comment="Sequences that kl is a mean of"),
    *float_columns("mean_length", "Mean response length of those sequences, in tokens"),
    Column(
        "readings",
        JSONText,
        nullable=False,
        comment="JSON: the step's other KLs, {key of kl_series: {value, se, n, mean_length, not_measured}}, what is absent left out",
    ),
    Column("metrics", JSONText, nullable=False, comment='JSON: every other number by name; here as above "NaN", "Infinity", "-Infinity"'),
    PrimaryKeyConstraint("run_id", "segment", "step"),
    comment="One row a step: what the trainer logged",
)

text_samples = Table(
    "text_samples",
    metadata,
    Column("run_id", String(64), nullable=False, comment="runs.id"),
    Column("segment", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("sample", Integer, nullable=False, comment="Which of the step's samples, from 0"),
    Column("prompt", Text, nullable=False),
    Column("completion", Text, nullable=False),
    *float_columns("score", "Raw reward of this completion"),
    Column(
        "tokens", JSONText, nullable=False, comment="JSON: [[text, policy log-probability, reference log-probability, kl or null]], nats"
    ),
    PrimaryKeyConstraint("run_id", "segment", "step", "sample"),
    ForeignKeyConstraint(["run_id", "segment", "step"], ["steps.run_id", "steps.segment", "steps.step"], ondelete="CASCADE"),
    comment="A few sampled completions of a step, token by token",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    run_id_column(),
    Column("segment", Integer, nullable=False),
    Column("step", BigInteger, nullable=False, comment="Updates done when it was saved"),
    Column("path", String(1024), nullable=False),
    Column("saved_at", Timestamp, nullable=False),
    Column("digest", String(71), comment="sha256: and 64 hex digits over its weights"),
    PrimaryKeyConstraint("run_id", "segment", "step", "path"),
    comment="Saved policies",
)

drift_measurements = Table(
    "drift_measurements",
    metadata,
    Column("id", Integer, primary_key=True),
    run_id_column(nullable=True, comment="runs.id; NULL: a checkpoint of no run"),
    Column("step", BigInteger, comment="Updates done when the checkpoint was saved"),
    Column("checkpoint", Text, nullable=False, comment="Path or name"),
    Column("checkpoint_digest", String(71)),
    Column("reference_name", Text, nullable=False),
    Column("reference_digest", String(71)),
    Column("slice", Text, comment="Which part of the prompt set; NULL: all prompts"),
    *series_columns(),
    *float_columns("value", "Mean KL over sequences, in unit"),
    *float_columns("low", "Lower end of the 95% interval, in unit"),
    *float_columns("high", "Upper end of the 95% interval, in unit"),
    Column("n_sequences", Integer, nullable=False),
    *float_columns("mean_length", "Tokens a sequence"),
    Column("measured_at", Timestamp, nullable=False),
    Column("settings", JSONText, nullable=False, comment="JSON: what is needed to measure again"),
    Index(None, "run_id"),
    comment="How far checkpoints have moved from the reference",
)

kl_budgets = Table(
    "kl_budgets",
    metadata,
    Column("id", String(64), primary_key=True),
    run_id_column(nullable=True, comment="The run it is for; NULL: by run_pattern"),
    Column("run_pattern", Text, comment="Shell-style pattern of run names; NULL beside a NULL run_id: every run"),
    Column("kl_limit", Double, nullable=False, comment="In unit"),
    Column("unit", String(32), nullable=False, comment="nats_per_token or nats_per_sequence"),
    Column("scope", String(16), nullable=False, comment="per_step, window, path or checkpoint"),
    Column("window_steps", Integer, comment="Span of the EWMA of scope window, in steps"),
    Column("breach_on", String(16), nullable=False, comment="bound: act once noise cannot explain it; value: at once"),
    Column("action", String(16), nullable=False, comment="alert, raise_beta, save_checkpoint or stop"),
    Column("owner", Text),
    Column("reason", Text),
    Column("created_at", Timestamp, nullable=False),
    Column("removed_at", Timestamp, comment="NULL: in force"),
    comment="Limits on KL that people set; removal is marked, never done",
)

findings = Table(
    "findings",
    metadata,
    Column("id", String(64), primary_key=True, comment="Fixed when first detected"),
    run_id_column(),
    Column("segment", Integer, nullable=False),
    Column("code", String(16), nullable=False, comment="Such as KLA101"),
    Column("rule", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("severity", String(16), nullable=False, comment="info, warning or critical"),
    Column("status", String(16), nullable=False, comment="open or ended"),
    Column("series", Text, comment="Key of the series or metric"),
    Column("first_step", BigInteger, nullable=False, comment="Where the episode began"),
    Column("detected_step", BigInteger, nullable=False, comment="The step whose record made the rule fire; never changes"),
    Column("last_step", BigInteger, nullable=False, comment="The last step of the episode so far"),
    *float_columns("value", "The number that was judged, in unit"),
    *float_columns("threshold", "What it was compared with, in unit"),
    Column("unit", Text),
    Column("message", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("evidence", JSONText, nullable=False, comment="JSON: what is needed to judge again"),
    Index(None, "run_id"),
    comment="Judgements of rules: one episode, one row, revised as it goes on",
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(64), primary_key=True, comment="Also what a receiver de-duplicates by"),
    run_id_column(),
    Column("finding_id", String(64), ForeignKey("findings.id", ondelete="CASCADE"), nullable=False, comment="findings.id"),
    Column("severity", String(16), nullable=False, comment="info, warning or critical"),
    Column("step", BigInteger, nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("channel", String(32), nullable=False, comment="console or webhook"),
    Column("created_at", Timestamp, nullable=False),
    Column("delivery", String(16), nullable=False, comment="pending, delivered or failed"),
    Column("error", Text, comment="Why the channel refused it"),
    Index(None, "run_id"),
    Index(None, "finding_id"),
    comment="Findings on their way to somebody",
)
