"""Saved policies."""

from sqlalchemy import insert, select, update

from klaudit.ledger.bodies import describe_checkpoint
from klaudit.records import Checkpoint
from klaudit.records.ledger import LedgerDraft
from klaudit.store.engine import Database
from klaudit.store.ledger import LedgerRepository
from klaudit.store.presence import require_run
from klaudit.store.tables import checkpoints


class CheckpointRepository:
    """Checkpoints of the runs of one store."""

    def __init__(self, database: Database, ledger: LedgerRepository) -> None:
        self._database = database
        self._ledger = ledger

    def add(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint; saved again at the same step and path, it is the later one that lies there.

        Raises:
            RunNotFound: no run has its run id.
        """
        where = (
            checkpoints.c.run_id == checkpoint.run_id,
            checkpoints.c.segment == checkpoint.segment,
            checkpoints.c.step == checkpoint.step,
            checkpoints.c.path == checkpoint.path,
        )
        row = {column.name: getattr(checkpoint, column.name) for column in checkpoints.columns}
        with self._database.writing() as connection:
            require_run(connection, checkpoint.run_id)
            if connection.execute(update(checkpoints).where(*where).values(row)).rowcount == 0:
                connection.execute(insert(checkpoints), row)
            self._ledger.append(connection, [LedgerDraft("checkpoint", describe_checkpoint(checkpoint), checkpoint.run_id)])

    def list(self, run_id: str) -> list[Checkpoint]:
        """Checkpoints of a run in order of segment, step and path."""
        query = select(checkpoints).where(checkpoints.c.run_id == run_id)
        query = query.order_by(checkpoints.c.segment, checkpoints.c.step, checkpoints.c.path)
        with self._database.reading() as connection:
            return [Checkpoint(**row) for row in connection.execute(query).mappings()]
