"""What OpenRLHF prints (OpenRLHF 0.11.2, openrlhf/trainer/ppo_trainer.py line 551): `Global step N: {...}` a step."""

import re
from collections.abc import Iterator
from pathlib import Path

from klaudit.exchange.console import clean, read_dict
from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.lines import read_lines
from klaudit.exchange.reader import FileHead, ImportedRun, LoggedValues, ReadOptions

LOGGED = re.compile(r"\bGlobal step (\d{1,19}): (?=\{)")


class OpenRLHFConsole:
    """Reads the log of `openrlhf.cli.train_ppo_ray`."""

    name = "openrlhf-console"
    describes = "what OpenRLHF prints: Global step N: {...}"

    def recognises(self, head: FileHead) -> bool:
        """By one such line among the first."""
        return LOGGED.search(clean(head.text)) is not None

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the log."""
        notes: list[str] = []
        yield interpret(
            _read_logged(path, options, notes), path=path, options=options, facts=RunFacts(framework="openrlhf-ppo"), notes=notes
        )


def _read_logged(path: Path, options: ReadOptions, notes: list[str]) -> Iterator[LoggedValues]:
    n_broken = 0
    for line in read_lines(path, on_progress=options.on_progress, is_console=True):
        text = clean(line.text)
        found = LOGGED.search(text)
        if found is None:
            continue
        values = read_dict(text, found.end())
        if values is None:
            n_broken += 1
            continue
        yield LoggedValues(step=int(found[1]), values=values, where=f"{path} line {line.number}")
    if n_broken:
        notes.append(f"{n_broken} steps of the log could not be read, because another process wrote into their lines or the log is cut off")
