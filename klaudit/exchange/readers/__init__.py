"""Every format that `klaudit import` reads, and how the right one is found."""

from pathlib import Path

from klaudit.errors import InvalidImportFile
from klaudit.exchange.reader import FileHead, Reader, read_head
from klaudit.exchange.readers.csv_columns import CSVColumns
from klaudit.exchange.readers.jsonl import JSONL
from klaudit.exchange.readers.mlflow import MLflow
from klaudit.exchange.readers.openrlhf_console import OpenRLHFConsole
from klaudit.exchange.readers.steps_csv import StepsCSV
from klaudit.exchange.readers.steps_jsonl import StepsJSONL
from klaudit.exchange.readers.steps_parquet import StepsParquet
from klaudit.exchange.readers.tensorboard import TensorBoard
from klaudit.exchange.readers.trackio import Trackio
from klaudit.exchange.readers.trainer_state import TrainerState
from klaudit.exchange.readers.trl_console import TRLConsole
from klaudit.exchange.readers.verl_console import VerlConsole
from klaudit.exchange.readers.verl_jsonl import VerlJSONL
from klaudit.exchange.readers.wandb_csv import WandbChart, WandbHistory
from klaudit.exchange.sqlite_file import MAGIC as SQLITE

READERS: tuple[Reader, ...] = (
    StepsCSV(),
    StepsParquet(),
    TensorBoard(),
    MLflow(),
    Trackio(),
    StepsJSONL(),
    TrainerState(),
    VerlJSONL(),
    JSONL(),
    VerlConsole(),
    OpenRLHFConsole(),
    TRLConsole(),
    WandbChart(),
    WandbHistory(),
    CSVColumns(),
)
"""In the order in which they are asked: what cannot be mistaken first, what fits anything last."""

WANDB_OFFLINE = b":W&B"


def find_reader(path: Path, format_name: str | None = None) -> Reader:
    """The reader of a file: of the named format, else the first that recognises it.

    Raises:
        InvalidImportFile: no such file, no such format, or no format that it could be.
    """
    head = read_head(path)
    if format_name is not None:
        for reader in READERS:
            if reader.name == format_name:
                return reader
        raise InvalidImportFile(f"expected a format of {', '.join(reader.name for reader in READERS)}; got {format_name!r}")
    for reader in READERS:
        if reader.recognises(head):
            return reader
    raise InvalidImportFile(
        f"{path}: {_describe_stranger(head)}. Formats: {', '.join(reader.name for reader in READERS)}; see docs/import.md"
    )


def _describe_stranger(head: FileHead) -> str:
    if head.is_directory:
        return "expected a directory in which a tool logged; nothing in this one is of a known format"
    if not head.start.strip():
        return "expected a file that a tool logged to; this one is empty"
    if head.start.startswith(WANDB_OFFLINE):
        return "expected a log; W&B's offline files are not read: sync the run and export its history as CSV"
    if head.start.startswith(SQLITE):
        return "expected an SQLite database of MLflow or trackio; this one lacks their tables, or is damaged"
    if b"\0" in head.start or head.start.startswith(b"\x80"):
        return "expected a log; this is a binary file of no format that klaudit reads, and pickles are never opened"
    return "expected a log of a known format; no line of this one is recognised. Where its columns need naming, say --format csv or --format jsonl with --column step=NAME"
