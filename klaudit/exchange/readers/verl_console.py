"""What verl prints (verl 0.9.1, verl/utils/logger/aggregate_logger.py lines 27-33): `step:N - key:value - key:value`.

Ray puts `(TaskRunner pid=123) ` before it, often in colour. Older versions print three decimals.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from klaudit.exchange.console import clean, read_number
from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.lines import read_lines
from klaudit.exchange.reader import FileHead, ImportedRun, LoggedValues, ReadOptions

LOGGED = re.compile(r"(?:^|[\s)])step:(\d{1,19}) - (\S+?:\S.*)$")
SEPARATOR = " - "


class VerlConsole:
    """Reads the log of `trainer.logger=[console]`."""

    name = "verl-console"
    describes = "what verl prints: step:N - key:value - ..."

    def recognises(self, head: FileHead) -> bool:
        """By one such line among the first."""
        return any(LOGGED.search(clean(line)) for line in re.split(r"[\r\n]", head.text))

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the log."""
        notes: list[str] = []
        yield interpret(_read_logged(path, options, notes), path=path, options=options, facts=RunFacts(framework="verl-ppo"), notes=notes)


def _read_logged(path: Path, options: ReadOptions, notes: list[str]) -> Iterator[LoggedValues]:
    n_broken = 0
    for line in read_lines(path, on_progress=options.on_progress, is_console=True):
        found = LOGGED.search(clean(line.text))
        if found is None:
            continue
        values = {}
        for pair in found[2].split(SEPARATOR):
            key, _, printed = pair.strip().rpartition(":")
            number = read_number(printed)
            if key and number is not None:
                values[key] = number
            else:
                n_broken += 1
        yield LoggedValues(step=int(found[1]), values=values, where=f"{path} line {line.number}")
    if n_broken:
        notes.append(f"{n_broken} pairs of the log could not be read, because another process wrote into their lines or the log is cut off")
