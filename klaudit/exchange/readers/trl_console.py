"""What TRL and other Hugging Face trainers print: a Python dictionary a logged step, amid progress bars."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from klaudit.exchange.console import clean, read_dict
from klaudit.exchange.interpretation import interpret
from klaudit.exchange.lines import read_lines
from klaudit.exchange.metric_map import is_step
from klaudit.exchange.reader import FileHead, ImportedRun, LoggedValues, ReadOptions

NO_STEPS = "the log does not name its steps: they are counted from 1, and with logging_steps above 1 they are not the trainer's"
BRACE = re.compile(r"\{(?=\s*['\"])")


class TRLConsole:
    """Reads the log of a trainer that reports to nobody."""

    name = "trl-console"
    describes = "what TRL and other Hugging Face trainers print: {'loss': ..., 'epoch': ...}"

    def recognises(self, head: FileHead) -> bool:
        """By one such dictionary among the first lines."""
        return any(find_logs(line) is not None for line in re.split(r"[\r\n]", head.text))

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the log."""
        yield interpret(_read_logged(path, options), path=path, options=options, notes=[NO_STEPS])


def find_logs(text: str) -> dict[str, Any] | None:
    """The dictionary that a trainer printed on a line: it has `epoch`, which the trainer adds to whatever it logs, and a number more."""
    cleaned = clean(text)
    for brace in BRACE.finditer(cleaned):
        logs = read_dict(cleaned, brace.start())
        if (
            logs is not None
            and isinstance(logs.get("epoch"), float)
            and any(isinstance(logs[key], float) for key in logs.keys() - {"epoch"})
        ):
            return logs
    return None


def _read_logged(path: Path, options: ReadOptions) -> Iterator[LoggedValues]:
    segment, step, epoch = 0, 0, 0.0
    for line in read_lines(path, on_progress=options.on_progress, is_console=True):
        logs = find_logs(line.text)
        if logs is None:
            continue
        # A trainer that resumes, or that starts again in the same log, goes back in its epochs.
        if logs["epoch"] < epoch:
            segment += 1
        epoch = logs["epoch"]
        step += is_step(logs) or step == 0
        yield LoggedValues(step=step, values=logs, where=f"{path} line {line.number}", segment=segment)
