"""What `klaudit export --format parquet` wrote."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from klaudit.errors import InvalidImportFile, MissingExtra
from klaudit.exchange.reader import FileHead, ImportedRun, ReadOptions, refuse
from klaudit.exchange.step_table import read_table
from klaudit.exchange.steps_file import FORMAT, read_run
from klaudit.exchange.writers.parquet_table import METADATA_KEY

MAGIC = b"PAR1"
ROWS_A_BATCH = 1_000


class StepsParquet:
    """Reads what `klaudit export --format parquet` writes."""

    name = "steps-parquet"
    describes = "Parquet that klaudit export wrote"

    def recognises(self, head: FileHead) -> bool:
        """Whether it is Parquet at all; what it must have in it, `read` says."""
        return head.start.startswith(MAGIC)

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The one run of the file.

        Raises:
            InvalidImportFile: no Parquet, none of klaudit's, or a row that cannot be read.
            MissingExtra: pyarrow is not installed.
        """
        with _refusing(path):
            from pyarrow import parquet  # type: ignore[import-untyped]

            with parquet.ParquetFile(path) as file:
                header = _read_header((file.schema_arrow.metadata or {}).get(METADATA_KEY), path)
                run = read_run(header, f"{path} metadata", began_at=datetime.fromtimestamp(path.stat().st_mtime, UTC))
                yield read_table(run, _read_rows(file, path, options), options)


def _read_header(content: bytes | None, path: Path) -> dict[str, Any]:
    if content is None:
        raise refuse(path, f"expected Parquet that klaudit export wrote; its metadata has no {FORMAT}. Save it as CSV and name its columns")
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refuse(f"{path} metadata", f"expected the header of {FORMAT}; {error}") from error
    if not isinstance(header, dict):
        raise refuse(f"{path} metadata", f"expected the header of {FORMAT}; got {header!r:.80}")
    return header


def _read_rows(file: Any, path: Path, options: ReadOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    number, n_bytes = 0, path.stat().st_size
    with _refusing(path):
        for batch in file.iter_batches(batch_size=ROWS_A_BATCH):
            for row in batch.to_pylist():
                number += 1
                moment = row.get("time")
                yield f"{path} row {number}", row | ({"time": moment.isoformat()} if isinstance(moment, datetime) else {})
            options.on_progress(n_bytes * number // file.metadata.num_rows, n_bytes)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Say of what pyarrow raises that the file is to blame."""
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra("Parquet", "dashboard") from error
    try:
        yield
    except InvalidImportFile:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise refuse(path, f"expected a Parquet file that can be read; {error}") from error
