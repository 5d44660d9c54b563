"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "klaudit_meta",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_klaudit_meta")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.String(length=27), nullable=False),
        sa.Column("finished_at", sa.String(length=27)),
        sa.Column("algorithm", sa.Text()),
        sa.Column("framework", sa.Text()),
        sa.Column("policy", sa.Text()),
        sa.Column("reference_name", sa.Text()),
        sa.Column("reference_digest", sa.String(length=71)),
        sa.Column("batch_size", sa.Integer()),
        sa.Column("beta", sa.Double()),
        sa.Column("beta_kind", sa.String(length=6)),
        sa.Column("planned_steps", sa.BigInteger()),
        sa.Column("config", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("name", name=op.f("uq_runs_name")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("saved_at", sa.String(length=27), nullable=False),
        sa.Column("digest", sa.String(length=71)),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_checkpoints_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "segment", "step", "path", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "drift_measurements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=64)),
        sa.Column("step", sa.BigInteger()),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.Column("checkpoint_digest", sa.String(length=71)),
        sa.Column("reference_name", sa.Text(), nullable=False),
        sa.Column("reference_digest", sa.String(length=71)),
        sa.Column("slice", sa.Text()),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("estimator", sa.String(length=16), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("aggregation", sa.String(length=16), nullable=False),
        sa.Column("direction", sa.String(length=16), nullable=False),
        sa.Column("temperature", sa.Double()),
        sa.Column("source_key", sa.Text()),
        sa.Column("value", sa.Double()),
        sa.Column("value_kind", sa.String(length=6)),
        sa.Column("low", sa.Double()),
        sa.Column("low_kind", sa.String(length=6)),
        sa.Column("high", sa.Double()),
        sa.Column("high_kind", sa.String(length=6)),
        sa.Column("n_sequences", sa.Integer(), nullable=False),
        sa.Column("mean_length", sa.Double()),
        sa.Column("mean_length_kind", sa.String(length=6)),
        sa.Column("measured_at", sa.String(length=27), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_drift_measurements_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_measurements")),
    )
    op.create_index(op.f("ix_drift_measurements_run_id"), "drift_measurements", ["run_id"], unique=False)
    op.create_table(
        "findings",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("rule_version", sa.Integer(), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("series", sa.Text()),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("detected_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("value_kind", sa.String(length=6)),
        sa.Column("threshold", sa.Double()),
        sa.Column("threshold_kind", sa.String(length=6)),
        sa.Column("unit", sa.Text()),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_findings_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_findings")),
    )
    op.create_index(op.f("ix_findings_run_id"), "findings", ["run_id"], unique=False)
    op.create_table(
        "kl_budgets",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64)),
        sa.Column("run_pattern", sa.Text()),
        sa.Column("kl_limit", sa.Double(), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("window_steps", sa.Integer()),
        sa.Column("breach_on", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.Column("removed_at", sa.String(length=27)),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_kl_budgets_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_kl_budgets")),
    )
    op.create_table(
        "kl_series",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("estimator", sa.String(length=16), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("aggregation", sa.String(length=16), nullable=False),
        sa.Column("direction", sa.String(length=16), nullable=False),
        sa.Column("temperature", sa.Double()),
        sa.Column("source_key", sa.Text()),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_kl_series_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "key", name=op.f("pk_kl_series")),
    )
    op.create_table(
        "segments",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.String(length=27), nullable=False),
        sa.Column("ended_at", sa.String(length=27)),
        sa.Column("host", sa.Text()),
        sa.Column("pid", sa.BigInteger()),
        sa.Column("resumed_from_step", sa.BigInteger()),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_segments_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "segment", name=op.f("pk_segments")),
    )
    op.create_table(
        "steps",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("logged_at", sa.String(length=27), nullable=False),
        sa.Column("kl", sa.Double()),
        sa.Column("kl_kind", sa.String(length=6)),
        sa.Column("kl_se", sa.Double()),
        sa.Column("kl_se_kind", sa.String(length=6)),
        sa.Column("kl_not_measured", sa.Text()),
        sa.Column("beta", sa.Double()),
        sa.Column("beta_kind", sa.String(length=6)),
        sa.Column("score", sa.Double()),
        sa.Column("score_kind", sa.String(length=6)),
        sa.Column("n_sequences", sa.Integer()),
        sa.Column("mean_length", sa.Double()),
        sa.Column("mean_length_kind", sa.String(length=6)),
        sa.Column("readings", sa.Text(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_steps_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "segment", "step", name=op.f("pk_steps")),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("finding_id", sa.String(length=64), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.String(length=27), nullable=False),
        sa.Column("delivery", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text()),
        sa.ForeignKeyConstraint(["finding_id"], ["findings.id"], name=op.f("fk_alerts_finding_id_findings"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_alerts_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_finding_id"), "alerts", ["finding_id"], unique=False)
    op.create_index(op.f("ix_alerts_run_id"), "alerts", ["run_id"], unique=False)
    op.create_table(
        "text_samples",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("completion", sa.Text(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("score_kind", sa.String(length=6)),
        sa.Column("tokens", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "segment", "step"],
            ["steps.run_id", "steps.segment", "steps.step"],
            name=op.f("fk_text_samples_run_id_segment_step_steps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("run_id", "segment", "step", "sample", name=op.f("pk_text_samples")),
    )


def downgrade() -> None:
    op.drop_table("text_samples")
    op.drop_index(op.f("ix_alerts_run_id"), table_name="alerts")
    op.drop_index(op.f("ix_alerts_finding_id"), table_name="alerts")
    op.drop_table("alerts")
    op.drop_table("steps")
    op.drop_table("segments")
    op.drop_table("kl_series")
    op.drop_table("kl_budgets")
    op.drop_index(op.f("ix_findings_run_id"), table_name="findings")
    op.drop_table("findings")
    op.drop_index(op.f("ix_drift_measurements_run_id"), table_name="drift_measurements")
    op.drop_table("drift_measurements")
    op.drop_table("checkpoints")
    op.drop_table("runs")
    op.drop_table("klaudit_meta")
