"""`trainer_state.json` of a Hugging Face trainer, and its `log_history` as a bare list."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.json_stream import Entry, read_entries
from klaudit.exchange.reader import FileHead, ImportedRun, LoggedValues, ReadOptions, refuse, shorten

LIST_KEY = "log_history"
CONFIG_KEYS = (
    "logging_steps",
    "eval_steps",
    "save_steps",
    "train_batch_size",
    "num_train_epochs",
    "max_steps",
    "total_flos",
    "trial_params",
)
"""Of the trainer's state, what it was told."""
PLAIN = (str, int, float, bool)
BARE_LIST = re.compile(r'\s*\[\s*\{[^{}\[\]]*"step"\s*:', re.ASCII)


class TrainerState:
    """Reads what a `Trainer` of transformers, TRL or Unsloth keeps beside every checkpoint."""

    name = "trainer-state"
    describes = "trainer_state.json of a Hugging Face trainer, or its log_history as a list"

    def recognises(self, head: FileHead) -> bool:
        """By the key `log_history` of an object, or a list of objects of which the first has a step."""
        text = head.text
        if text.lstrip()[:1] == "{":
            return bool(re.search(r'"log_history"\s*:\s*\[', text)) or ('"global_step"' in text and '"is_world_process_zero"' in text)
        return BARE_LIST.match(text) is not None

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the file, which is read twice: what the trainer was told may stand behind its steps."""
        facts: dict[str, Any] = {}
        has_list = False
        for entry in read_entries(path, list_key=LIST_KEY, on_progress=lambda done, total: None):
            has_list = has_list or entry.index is not None or entry.key == LIST_KEY
            if entry.key in CONFIG_KEYS and isinstance(entry.value, PLAIN):
                facts[entry.key] = entry.value
        if not has_list:
            raise refuse(
                path,
                f"expected a list of what the trainer logged, under {LIST_KEY!r} or as the whole file; there is none, or nothing in it",
            )
        planned = facts.get("max_steps")
        yield interpret(
            _read_logged(path, options),
            path=path,
            options=options,
            facts=RunFacts(planned_steps=planned if isinstance(planned, int) and planned > 0 else None, config=facts),
        )


def _read_logged(path: Path, options: ReadOptions) -> Iterator[LoggedValues]:
    column = options.columns.get("step", "step")
    for entry in read_entries(path, list_key=LIST_KEY, on_progress=options.on_progress):
        if entry.index is None:
            if entry.key == LIST_KEY:
                raise refuse(f"{path} line {entry.line}", f"expected a list; got {shorten(repr(entry.value))}", field=LIST_KEY)
            continue
        yield _read_entry(entry, f"{path} line {entry.line}", column)


def _read_entry(entry: Entry, where: str, column: str) -> LoggedValues:
    if not isinstance(entry.value, dict):
        raise refuse(where, f"expected an object for entry {entry.index}; got {shorten(repr(entry.value))}")
    values = dict(entry.value)
    step = values.pop(column, None)
    if isinstance(step, bool) or not isinstance(step, int):
        raise refuse(where, f"expected a whole number; got {shorten(repr(step))}", field=column)
    return LoggedValues(step=step, values=values, where=where)
