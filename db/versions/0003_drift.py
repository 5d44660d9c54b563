"""Completions of drift measurements, what they say beside KLs, and distances between checkpoints."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "drift_shards",
        sa.Column("key", sa.String(length=71), nullable=False),
        sa.Column("run_id", sa.String(length=64)),
        sa.Column("n_sequences", sa.Integer(), nullable=False),
        sa.Column("stored_at", sa.String(length=27), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_drift_shards_run_id_runs"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_drift_shards")),
    )
    op.create_index(op.f("ix_drift_shards_run_id"), "drift_shards", ["run_id"], unique=False)
    op.create_table(
        "drift_profiles",
        sa.Column("id", sa.Integer(), nullable=False),
        *make_checkpoint_columns(),
        sa.Column("key", sa.String(length=71), nullable=False),
        *make_float_columns("ratio", "ratio_low", "ratio_high"),
        sa.Column("retention", sa.Text()),
        sa.Column("layers", sa.Text(), nullable=False),
        sa.Column("contrasts", sa.Text(), nullable=False),
        sa.Column("shards", sa.Text(), nullable=False),
        sa.Column("measured_at", sa.String(length=27), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_drift_profiles_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_profiles")),
    )
    op.create_index(op.f("ix_drift_profiles_run_id"), "drift_profiles", ["run_id"], unique=False)
    op.create_index(op.f("ix_drift_profiles_key"), "drift_profiles", ["key"], unique=False)
    op.create_table(
        "checkpoint_distances",
        sa.Column("id", sa.Integer(), nullable=False),
        *make_checkpoint_columns(),
        sa.Column("slice", sa.Text()),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("estimator", sa.String(length=16), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("aggregation", sa.String(length=16), nullable=False),
        sa.Column("direction", sa.String(length=16), nullable=False),
        sa.Column("temperature", sa.Double()),
        sa.Column("source_key", sa.Text()),
        *make_float_columns("value", "low", "high"),
        sa.Column("n_sequences", sa.Integer(), nullable=False),
        *make_float_columns("mean_length"),
        sa.Column("measured_at", sa.String(length=27), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_checkpoint_distances_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoint_distances")),
    )
    op.create_index(op.f("ix_checkpoint_distances_run_id"), "checkpoint_distances", ["run_id"], unique=False)


def downgrade() -> None:
    for name, indexed in (("checkpoint_distances", ["run_id"]), ("drift_profiles", ["key", "run_id"]), ("drift_shards", ["run_id"])):
        for column in indexed:
            op.drop_index(op.f(f"ix_{name}_{column}"), table_name=name)
        op.drop_table(name)


def make_checkpoint_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("run_id", sa.String(length=64)),
        sa.Column("step", sa.BigInteger()),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.Column("checkpoint_digest", sa.String(length=71)),
        sa.Column("reference_name", sa.Text(), nullable=False),
        sa.Column("reference_digest", sa.String(length=71)),
    )


def make_float_columns(*names: str) -> tuple[sa.Column[Any], ...]:
    return tuple(one for name in names for one in (sa.Column(name, sa.Double()), sa.Column(f"{name}_kind", sa.String(length=6))))
