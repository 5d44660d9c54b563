"""Sampled completions of steps, token by token."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, select

from klaudit.records import TextSample, TokenScore
from klaudit.store.engine import Database
from klaudit.store.floats import join_float, split_float
from klaudit.store.tables import text_samples


class SampleRepository:
    """Text samples of the runs of one store; `StepRepository.add` writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, run_id: str, step: int | None = None) -> list[TextSample]:
        """Samples of a run, or of one of its steps, in order."""
        query = select(text_samples).where(text_samples.c.run_id == run_id)
        if step is not None:
            query = query.where(text_samples.c.step == step)
        query = query.order_by(text_samples.c.segment, text_samples.c.step, text_samples.c.sample)
        with self._database.reading() as connection:
            return [_from_sample_row(row) for row in connection.execute(query).mappings()]

    def steps_with_samples(self, run_id: str) -> Sequence[int]:
        """Steps of a run that have samples, rising."""
        query = select(text_samples.c.step).distinct().where(text_samples.c.run_id == run_id).order_by(text_samples.c.step)
        with self._database.reading() as connection:
            return connection.scalars(query).all()


def to_sample_row(run_id: str, sample: TextSample) -> dict[str, Any]:
    """The row of `text_samples` for a sample."""
    return {
        "run_id": run_id,
        "segment": sample.segment,
        "step": sample.step,
        "sample": sample.index,
        "prompt": sample.prompt,
        "completion": sample.completion,
        **split_float("score", sample.score),
        "tokens": [[one.text, one.policy_logprob, one.reference_logprob, one.kl] for one in sample.tokens],
    }


def _from_sample_row(row: RowMapping) -> TextSample:
    return TextSample(
        step=row["step"],
        prompt=row["prompt"],
        completion=row["completion"],
        tokens=tuple(TokenScore(*one) for one in row["tokens"]),
        segment=row["segment"],
        index=row["sample"],
        score=join_float(row["score"], row["score_kind"]),
    )
