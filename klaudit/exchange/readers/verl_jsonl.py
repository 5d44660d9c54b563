"""What verl's file logger writes (verl 0.9.1, verl/utils/tracking.py lines 529-545): `{"step": n, "data": {...}}` a line."""

from collections.abc import Iterator
from pathlib import Path

from klaudit.exchange.interpretation import RunFacts, interpret
from klaudit.exchange.json_lines import read_objects
from klaudit.exchange.places import read_whole
from klaudit.exchange.reader import FileHead, ImportedRun, LoggedValues, ReadOptions, refuse, shorten


class VerlJSONL:
    """Reads the file of `trainer.logger=[file]`."""

    name = "verl-jsonl"
    describes = "JSON lines of verl's file logger"

    def recognises(self, head: FileHead) -> bool:
        """By the two keys of its first line."""
        return head.text.lstrip().startswith('{"step":') and '"data":{' in head.text[:200].replace(" ", "")

    def read(self, path: Path, options: ReadOptions) -> Iterator[ImportedRun]:
        """The run of the file."""
        yield interpret(_read_logged(path, options), path=path, options=options, facts=RunFacts(framework="verl-ppo"))


def _read_logged(path: Path, options: ReadOptions) -> Iterator[LoggedValues]:
    for where, content in read_objects(path, on_progress=options.on_progress):
        step, data = read_whole(content.get("step"), where, "step"), content.get("data")
        if not isinstance(data, dict):
            raise refuse(where, f"expected an object; got {shorten(repr(data))}", field="data")
        yield LoggedValues(step=step, values=data, where=where)
