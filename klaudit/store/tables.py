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
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)

from klaudit.store.column_types import JSONText, PlainText, Timestamp

SCHEMA_REVISION = "0003"
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
        Column("source_key", PlainText, comment="The trainer's own name of the number"),
    )


def checkpoint_columns(*, reference: str) -> tuple[Column[Any], ...]:
    """Which checkpoint was compared with which model."""
    return (
        run_id_column(nullable=True, comment="runs.id; NULL: a checkpoint of no run"),
        Column("step", BigInteger, comment="Updates done when the checkpoint was saved"),
        Column("checkpoint", PlainText, nullable=False, comment="Path or name"),
        Column("checkpoint_digest", String(71)),
        Column("reference_name", PlainText, nullable=False, comment=reference),
        Column("reference_digest", String(71)),
    )


def measured_columns(*, reference: str) -> tuple[Column[Any], ...]:
    """A measured KL with its 95% interval."""
    return (
        Column("id", Integer, primary_key=True),
        *checkpoint_columns(reference=reference),
        Column("slice", PlainText, comment="Which part of the prompt set; NULL: all prompts"),
        *series_columns(),
        *float_columns("value", "Mean KL over sequences, in unit"),
        *float_columns("low", "Lower end of the 95% interval, in unit"),
        *float_columns("high", "Upper end of the 95% interval, in unit"),
        Column("n_sequences", Integer, nullable=False),
        *float_columns("mean_length", "Tokens a sequence"),
        Column("measured_at", Timestamp, nullable=False),
        Column("settings", JSONText, nullable=False, comment="JSON: what is needed to measure again"),
    )


klaudit_meta = Table(
    "klaudit_meta",
    metadata,
    Column("name", String(32), primary_key=True, comment="created_by or upgraded_by"),
    Column("value", PlainText, nullable=False, comment="Version of klaudit"),
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
    Column("algorithm", PlainText, comment="Such as ppo"),
    Column("framework", PlainText, comment="The trainer that the numbers come from"),
    Column("policy", PlainText, comment="Name of the model that is trained"),
    Column("reference_name", PlainText, comment="Name of the frozen model that KL is measured against"),
    Column("reference_digest", String(71), comment="sha256: and 64 hex digits over its weights"),
    Column("batch_size", Integer, comment="Sequences a step"),
    *float_columns("beta", "KL penalty coefficient at the start"),
    Column("planned_steps", BigInteger),
    Column("config", JSONText, nullable=False, comment="JSON: the trainer's arguments"),
    Column("identity", JSONText, comment="JSON: digests, tokenizer, chat template, package versions, git state"),
    comment="Training runs, as they were declared when they began",
)

segments = Table(
    "segments",
    metadata,
    run_id_column(),
    Column("segment", Integer, nullable=False, comment="0 for the first stretch"),
    Column("started_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    Column("host", PlainText),
    Column("pid", BigInteger, comment="Process id of the trainer on that host"),
    Column("resumed_from_step", BigInteger),
    Column("session", String(64), comment="The journal that writes it; NULL: written without one"),
    Column("heartbeat_at", Timestamp, comment="When its writer last said that it lives"),
    Column("lease_until", Timestamp, comment="No other writer may go on with the run before; NULL: no lease"),
    Column("process_started", PlainText, comment="Tells its process from a later one with the same id"),
    Column("reference_digest", String(71), comment="Of the reference model in this stretch: sha256: and 64 hex digits"),
    Column("controller", JSONText, comment="JSON: state of the beta controller when it began"),
    Column("n_lost", Integer, nullable=False, server_default="0", comment="Steps that were logged and could not be kept"),
    Column("lost_first_step", BigInteger, comment="The first of them, where it is known"),
    Column("lost_last_step", BigInteger, comment="The last of them, where it is known"),
    Column("lost_reason", PlainText, comment="Why"),
    PrimaryKeyConstraint("run_id", "segment"),
    Index("uq_segments_session", "session", unique=True),
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
    Column("kl_not_measured", PlainText, comment="Why there is no kl"),
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
    Column("prompt", PlainText, nullable=False),
    Column("completion", PlainText, nullable=False),
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
    *measured_columns(reference="Name of the model that it is compared with"),
    Index(None, "run_id"),
    comment="How far checkpoints have moved from the reference",
)

checkpoint_distances = Table(
    "checkpoint_distances",
    metadata,
    *measured_columns(reference="Path or name of the other checkpoint"),
    Index(None, "run_id"),
    comment="How far checkpoints are from each other, both ways",
)

drift_shards = Table(
    "drift_shards",
    metadata,
    Column("key", String(71), primary_key=True, comment="sha256: and 64 hex digits over all that decides the numbers inside"),
    Column(
        "run_id",
        String(64),
        ForeignKey("runs.id", ondelete="SET NULL"),
        comment="runs.id it was measured for first; others may share it. NULL: no run, or one that is gone",
    ),
    Column("n_sequences", Integer, nullable=False, comment="Completions in it"),
    Column("stored_at", Timestamp, nullable=False),
    Column("content", LargeBinary, nullable=False, comment="zlib: JSON of the completions, token by token; nats"),
    Index(None, "run_id"),
    comment="Sampled completions with their drift at every token; kept one by one, so that a measurement can be continued",
)

drift_profiles = Table(
    "drift_profiles",
    metadata,
    Column("id", Integer, primary_key=True),
    *checkpoint_columns(reference="Name of the model that it is compared with"),
    Column("key", String(71), nullable=False, comment="sha256: and 64 hex digits over models, prompts and settings"),
    *float_columns("ratio", "Mean of reference/policy probability over the policy's sampled tokens, no unit"),
    *float_columns("ratio_low", "Lower end of its 95% interval"),
    *float_columns("ratio_high", "Upper end of its 95% interval"),
    Column("retention", JSONText, comment="JSON: how well it predicts a text, nats per token with 95% intervals; NULL: not measured"),
    Column("layers", JSONText, nullable=False, comment="JSON: relative L2 distance of the weights by layer, no unit"),
    Column("contrasts", JSONText, nullable=False, comment="JSON: each slice of the prompts against the others, nats per token"),
    Column("shards", JSONText, nullable=False, comment="JSON: keys of drift_shards"),
    Column("measured_at", Timestamp, nullable=False),
    Column("settings", JSONText, nullable=False, comment="JSON: what is needed to measure again"),
    Index(None, "run_id"),
    Index(None, "key"),
    comment="What a measurement says of a checkpoint beside its KL; its KLs are the drift_measurements of the same checkpoint and time",
)

kl_budgets = Table(
    "kl_budgets",
    metadata,
    Column("id", String(64), primary_key=True),
    run_id_column(nullable=True, comment="The run it is for; NULL: by run_pattern"),
    Column("run_pattern", PlainText, comment="Shell-style pattern of run names; NULL beside a NULL run_id: every run"),
    Column("kl_limit", Double, nullable=False, comment="In unit"),
    Column("unit", String(32), nullable=False, comment="nats_per_token or nats_per_sequence"),
    Column("scope", String(16), nullable=False, comment="per_step, window, path or checkpoint"),
    Column("window_steps", Integer, comment="Span of the EWMA of scope window, in steps"),
    Column("breach_on", String(16), nullable=False, comment="bound: act once noise cannot explain it; value: at once"),
    Column("action", String(16), nullable=False, comment="alert, raise_beta, save_checkpoint or stop"),
    Column("owner", PlainText),
    Column("reason", PlainText),
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
    Column("rule", PlainText, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("severity", String(16), nullable=False, comment="info, warning or critical"),
    Column("status", String(16), nullable=False, comment="open or ended"),
    Column("series", PlainText, comment="Key of the series or metric"),
    Column("first_step", BigInteger, nullable=False, comment="Where the episode began"),
    Column("detected_step", BigInteger, nullable=False, comment="The step whose record made the rule fire; never changes"),
    Column("last_step", BigInteger, nullable=False, comment="The last step of the episode so far"),
    *float_columns("value", "The number that was judged, in unit"),
    *float_columns("threshold", "What it was compared with, in unit"),
    Column("unit", PlainText),
    Column("message", PlainText, nullable=False),
    Column("remedy", PlainText, nullable=False),
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
    Column("title", PlainText, nullable=False),
    Column("text", PlainText, nullable=False),
    Column("channel", String(32), nullable=False, comment="console or webhook"),
    Column("created_at", Timestamp, nullable=False),
    Column("delivery", String(16), nullable=False, comment="pending, delivered or failed"),
    Column("error", PlainText, comment="Why the channel refused it"),
    Index(None, "run_id"),
    Index(None, "finding_id"),
    comment="Findings on their way to somebody",
)

run_summaries = Table(
    "run_summaries",
    metadata,
    run_id_column(),
    Column("n_steps", BigInteger, nullable=False, comment="Steps stored, superseded ones included"),
    Column("n_kl_measured", BigInteger, nullable=False, comment="Steps with a finite KL of kl_key"),
    Column("n_non_finite", BigInteger, nullable=False, comment="Steps with a NaN or an infinity in them"),
    Column("n_lost", BigInteger, nullable=False, comment="Steps that were logged and could not be kept, over all segments"),
    Column("first_segment", Integer),
    Column("first_step", BigInteger),
    Column("last_segment", Integer),
    Column("last_step", BigInteger, comment="Of the last segment; the other columns last_ are that step's"),
    Column("last_logged_at", Timestamp),
    Column("kl_key", String(255), nullable=False, comment="Key of the governing series, else kl"),
    *float_columns("last_kl", "KL of kl_key, in the unit of its kl_series"),
    *float_columns("last_kl_se", "Its standard error, in the same unit"),
    Column("last_kl_not_measured", PlainText, comment="Why there is no last_kl"),
    Column("last_n_sequences", Integer, comment="Sequences that last_kl is a mean of"),
    *float_columns("last_mean_length", "Mean response length of those sequences, in tokens"),
    *float_columns("last_beta", "KL penalty coefficient"),
    *float_columns("last_score", "Raw reward, mean over the batch"),
    Column("rollup_keys", JSONText, nullable=False, comment="JSON: keys of the run's rollups, in order of appearance"),
    PrimaryKeyConstraint("run_id"),
    comment="One row a run, kept with every batch of steps, so that a list of runs reads no step",
)

rollups = Table(
    "rollups",
    metadata,
    run_id_column(),
    Column("key", String(255), nullable=False, comment="kl, a key of steps.readings, beta, score or a metric's name"),
    Column("level", Integer, nullable=False, comment="Steps a bucket: 64 or 1024"),
    Column("segment", Integer, nullable=False),
    Column("bucket", BigInteger, nullable=False, comment="step / level, rounded down"),
    Column("n", Integer, nullable=False, comment="Finite values"),
    Column("min", Double, comment="Least finite value; NULL: none"),
    Column("min_step", BigInteger),
    Column("max", Double, comment="Greatest finite value; NULL: none"),
    Column("max_step", BigInteger),
    Column("total", Double, comment="Sum of the finite values; NULL: beyond the range of a double"),
    Column("n_non_finite", Integer, nullable=False, comment="NaNs and infinities"),
    Column("first_step", BigInteger, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_id", "key", "level", "segment", "bucket"),
    sqlite_with_rowid=False,
    comment="Buckets of steps, kept with every batch, so that a chart of a long run reads few rows",
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False, comment="1, 2, 3 and so on over the whole store"),
    Column("run_id", String(64), comment="Of a run that may be gone since; NULL: about the store"),
    Column("run_seq", BigInteger, comment="1, 2, 3 and so on over the run"),
    Column("kind", String(32), nullable=False, comment="Such as run, segment, steps, checkpoint or budget"),
    Column("at", Timestamp, nullable=False),
    Column("actor", JSONText, nullable=False, comment="JSON: operating-system user, host, process; a name where given"),
    Column("body", JSONText, nullable=False, comment="JSON: what happened"),
    Column("prev_hash", String(71), nullable=False, comment="hash of the entry before"),
    Column("run_prev_hash", String(71), comment="hash of the run's entry before"),
    Column("hash", String(71), nullable=False, unique=True, comment="sha256: and 64 hex digits over this entry"),
    Index(None, "run_id", "run_seq"),
    comment="Hash chain over what was stored and done; never changed, never removed",
)
