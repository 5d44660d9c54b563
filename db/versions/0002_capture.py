"""Sessions of segments, the ledger, and summaries and roll-ups that are kept at write time."""

import math
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from klaudit.records import KLSeries, find_governing_series
from klaudit.store.floats import decode_json, encode_json, join_float, split_float
from klaudit.store.rollups import extend_keys, roll_up, write_rollups

revision = "0002"
down_revision = "0001"

BATCH = 1024
"""Steps of a run that are held in memory at once."""

runs = sa.table("runs", sa.column("id"))
kl_series = sa.table("kl_series", *map(sa.column, ("run_id", "key", "kind", "estimator", "unit", "aggregation", "direction")))
steps = sa.table(
    "steps",
    *map(sa.column, ("run_id", "segment", "step", "logged_at", "kl", "kl_kind", "kl_se", "kl_se_kind", "kl_not_measured", "n_sequences")),
    *map(sa.column, ("mean_length", "mean_length_kind", "beta", "beta_kind", "score", "score_kind", "readings", "metrics")),
)


def upgrade() -> None:
    op.add_column("runs", sa.Column("identity", sa.Text()))
    op.add_column("segments", sa.Column("session", sa.String(length=64)))
    op.add_column("segments", sa.Column("heartbeat_at", sa.String(length=27)))
    op.add_column("segments", sa.Column("lease_until", sa.String(length=27)))
    op.add_column("segments", sa.Column("process_started", sa.Text()))
    op.add_column("segments", sa.Column("reference_digest", sa.String(length=71)))
    op.add_column("segments", sa.Column("controller", sa.Text()))
    op.add_column("segments", sa.Column("n_lost", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("segments", sa.Column("lost_first_step", sa.BigInteger()))
    op.add_column("segments", sa.Column("lost_last_step", sa.BigInteger()))
    op.add_column("segments", sa.Column("lost_reason", sa.Text()))
    op.create_index("uq_segments_session", "segments", ["session"], unique=True)
    op.create_table(
        "ledger_entries",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("run_id", sa.String(length=64)),
        sa.Column("run_seq", sa.BigInteger()),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("at", sa.String(length=27), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.String(length=71), nullable=False),
        sa.Column("run_prev_hash", sa.String(length=71)),
        sa.Column("hash", sa.String(length=71), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint("hash", name=op.f("uq_ledger_entries_hash")),
    )
    op.create_index(op.f("ix_ledger_entries_run_id_run_seq"), "ledger_entries", ["run_id", "run_seq"], unique=False)
    summaries = op.create_table(
        "run_summaries",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("n_steps", sa.BigInteger(), nullable=False),
        sa.Column("n_kl_measured", sa.BigInteger(), nullable=False),
        sa.Column("n_non_finite", sa.BigInteger(), nullable=False),
        sa.Column("n_lost", sa.BigInteger(), nullable=False),
        sa.Column("first_segment", sa.Integer()),
        sa.Column("first_step", sa.BigInteger()),
        sa.Column("last_segment", sa.Integer()),
        sa.Column("last_step", sa.BigInteger()),
        sa.Column("last_logged_at", sa.String(length=27)),
        sa.Column("kl_key", sa.String(length=255), nullable=False),
        sa.Column("last_kl", sa.Double()),
        sa.Column("last_kl_kind", sa.String(length=6)),
        sa.Column("last_kl_se", sa.Double()),
        sa.Column("last_kl_se_kind", sa.String(length=6)),
        sa.Column("last_kl_not_measured", sa.Text()),
        sa.Column("last_n_sequences", sa.Integer()),
        sa.Column("last_mean_length", sa.Double()),
        sa.Column("last_mean_length_kind", sa.String(length=6)),
        sa.Column("last_beta", sa.Double()),
        sa.Column("last_beta_kind", sa.String(length=6)),
        sa.Column("last_score", sa.Double()),
        sa.Column("last_score_kind", sa.String(length=6)),
        sa.Column("rollup_keys", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_summaries_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_summaries")),
    )
    op.create_table(
        "rollups",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("min", sa.Double()),
        sa.Column("min_step", sa.BigInteger()),
        sa.Column("max", sa.Double()),
        sa.Column("max_step", sa.BigInteger()),
        sa.Column("total", sa.Double()),
        sa.Column("n_non_finite", sa.Integer(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_rollups_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "key", "level", "segment", "bucket", name=op.f("pk_rollups")),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    for run_id in connection.scalars(sa.select(runs.c.id)).all():
        connection.execute(summaries.insert(), summarize(connection, run_id))


def downgrade() -> None:
    op.drop_table("rollups")
    op.drop_table("run_summaries")
    op.drop_index(op.f("ix_ledger_entries_run_id_run_seq"), table_name="ledger_entries")
    op.drop_table("ledger_entries")
    op.drop_index("uq_segments_session", table_name="segments")
    for name in (
        "lost_reason",
        "lost_last_step",
        "lost_first_step",
        "n_lost",
        "controller",
        "reference_digest",
        "process_started",
        "lease_until",
        "heartbeat_at",
        "session",
    ):
        op.drop_column("segments", name)
    op.drop_column("runs", "identity")


def summarize(connection: sa.Connection, run_id: str) -> dict[str, Any]:
    """Roll up a run's steps, and return its summary."""
    kl_key = find_kl_key(connection, run_id)
    keys: list[str] = []
    first = last = None
    n_steps = n_measured = n_non_finite = 0
    for rows in read_batches(connection, run_id):
        values = [list_values(row) for row in rows]
        keys = extend_keys(keys, values)
        places = [(row.segment, row.step, own) for row, own in zip(rows, values, strict=True)]
        write_rollups(connection, roll_up(run_id, places, keys))
        first, last = first or rows[0], rows[-1]
        n_steps += len(rows)
        n_measured += sum(math.isfinite(own.get(kl_key, math.nan)) for own in values)
        n_non_finite += sum(not all(map(math.isfinite, own.values())) for own in values)
    return {
        "run_id": run_id,
        "n_steps": n_steps,
        "n_kl_measured": n_measured,
        "n_non_finite": n_non_finite,
        "n_lost": 0,
        "first_segment": first and first.segment,
        "first_step": first and first.step,
        "kl_key": kl_key,
        "rollup_keys": encode_json(keys),
        **describe_last(last, kl_key),
    }


def find_kl_key(connection: sa.Connection, run_id: str) -> str:
    """Key of the governing series, else kl."""
    rows = connection.execute(sa.select(kl_series).where(kl_series.c.run_id == run_id))
    series = {row.key: KLSeries(row.kind, row.estimator, row.unit, row.aggregation, row.direction) for row in rows}
    return find_governing_series(series) or "kl"


def read_batches(connection: sa.Connection, run_id: str) -> Iterator[list[sa.Row[Any]]]:
    """A run's steps in order, some at a time."""
    query = sa.select(steps).where(steps.c.run_id == run_id).order_by(steps.c.segment, steps.c.step).limit(BATCH)
    rows = connection.execute(query).all()
    while rows:
        yield list(rows)
        rows = connection.execute(query.where(sa.tuple_(steps.c.segment, steps.c.step) > (rows[-1].segment, rows[-1].step))).all()


def list_values(row: sa.Row[Any]) -> dict[str, float]:
    """A step's numbers by roll-up key."""
    own = {"kl": join_float(row.kl, row.kl_kind)} | {key: one.get("value") for key, one in decode_json(row.readings).items()}
    own |= {"beta": join_float(row.beta, row.beta_kind), "score": join_float(row.score, row.score_kind)}
    values = {key: float(value) for key, value in own.items() if value is not None}
    return values | {name: float(value) for name, value in decode_json(row.metrics).items() if name not in own}


def describe_last(row: sa.Row[Any] | None, kl_key: str) -> dict[str, Any]:
    """The columns about a run's last step."""
    if row is None:
        return {}
    found = {
        "last_segment": row.segment,
        "last_step": row.step,
        "last_logged_at": row.logged_at,
        "last_beta": row.beta,
        "last_beta_kind": row.beta_kind,
        "last_score": row.score,
        "last_score_kind": row.score_kind,
    }
    if kl_key == "kl":
        names = ("kl", "kl_kind", "kl_se", "kl_se_kind", "kl_not_measured", "n_sequences", "mean_length", "mean_length_kind")
        return found | {f"last_{name}": getattr(row, name) for name in names}
    reading = decode_json(row.readings).get(kl_key) or {"not_measured": f"step {row.step} has no {kl_key}"}
    return found | {
        **split_float("last_kl", reading.get("value")),
        **split_float("last_kl_se", reading.get("se")),
        "last_kl_not_measured": reading.get("not_measured"),
        "last_n_sequences": reading.get("n"),
        **split_float("last_mean_length", reading.get("mean_length")),
    }
