"""What other tools wrote, into the store: all of a file or nothing, and nothing twice."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from klaudit.digests import digest_file, digest_text
from klaudit.exchange.reader import NO_OPTIONS, ImportedRun, Reader, ReadOptions, refuse, refuse_unreadable
from klaudit.exchange.readers import find_reader
from klaudit.records import Run
from klaudit.store import Store
from klaudit.workflows.loading import LoadedRun, load_run, recall_run

WRITE_AHEAD_LOG = "-wal"
"""Behind an SQLite file's name: the file in which its latest changes lie."""


@dataclass(frozen=True, slots=True)
class RunImport:
    """What became of one run of a file."""

    loaded: LoadedRun
    format_name: str
    notes: tuple[str, ...]


def check_file(path: Path, *, format_name: str | None = None, options: ReadOptions = NO_OPTIONS) -> None:
    """Read a file to its end and keep nothing, so that a bad one neither makes a store nor holds one up.

    Raises:
        InvalidImportFile: a part of it cannot be read, or no run is in it.
    """
    n_runs = 0
    for imported in find_reader(path, format_name).read(path, options):
        n_runs += 1
        for _ in imported.steps:
            pass
    if not n_runs:
        wanted = "" if options.run_filter is None else f" of the name {options.run_filter!r}"
        raise refuse(path, f"expected at least one run{wanted}; there is none")


def import_file(store: Store, path: Path, *, format_name: str | None = None, options: ReadOptions = NO_OPTIONS) -> tuple[RunImport, ...]:
    """Put the runs of a file into the store, audit them and keep their findings; importing it again changes nothing.

    Args:
        store: open for writing; whoever else writes to it waits until the file is in.
        path: a file, or a directory that a tool logged to.
        format_name: of `klaudit.exchange.readers.READERS`; None: told by what is in it.
        options: what the person says of it.

    Raises:
        InvalidImportFile: a part of it cannot be read. The store is as it was.
        KlauditError: the store refuses a part of it. The store is as it was.
    """
    reader = find_reader(path, format_name)
    contents: dict[tuple[Path, ...], list[str]] = {}
    imports = []
    with store.together():
        known = {digest: summary for summary in store.runs.list() if (digest := _read_digest(summary.run)) is not None}
        # A reader reads on before it says what it reads.
        at_first = _look_at((path,))
        for imported in reader.read(path, options):
            files = tuple(imported.files) or (path,)
            before = _look_at(files) if imported.files else at_first
            if files not in contents:
                contents[files] = _digest_files(files)
            digest = _digest_import(contents[files], imported, reader=reader, options=options)
            if digest in known:
                imports.append(RunImport(recall_run(known[digest]), reader.name, notes=()))
                continue
            imports.append(_load(store, path, imported, reader=reader, digest=digest))
            if _look_at(files) != before:
                raise refuse(path, "expected a file that nobody writes to; it changed while it was read. Import it again, or a copy of it")
    return tuple(imports)


def _load(store: Store, path: Path, imported: ImportedRun, *, reader: Reader, digest: str) -> RunImport:
    origin = {"digest": digest, "format": reader.name, "file": path.name, "part": imported.part}
    run = replace(imported.run, identity={**(imported.run.identity or {}), "imported": origin})
    notes: tuple[str, ...] = ()
    if run.status == "running":
        # Nobody trains it here, and it would be waited for.
        run, notes = replace(run, status="finished"), ("the run was still being trained when the file was written",)
    loaded = load_run(store, run, imported.steps)
    store.ledger.note("run_imported", origin, run_id=loaded.run.id)
    return RunImport(loaded, reader.name, notes=(*imported.notes, *notes))


def _read_digest(run: Run) -> str | None:
    imported = (run.identity or {}).get("imported")
    return imported.get("digest") if isinstance(imported, dict) else None


def _digest_import(content: Sequence[str], imported: ImportedRun, *, reader: Reader, options: ReadOptions) -> str:
    """Of the content, and of what the person said that changes its meaning; a name does not."""
    said = {
        "content": list(content),
        "format": reader.name,
        "part": imported.part,
        "columns": dict(options.columns),
        "series": {key: asdict(one) for key, one in options.series.items()},
        "metric_map": {key: one if isinstance(one, str) else asdict(one) for key, one in options.metric_map.items()},
        "framework": options.framework,
    }
    return digest_text(json.dumps(said, sort_keys=True))


def _digest_files(files: Sequence[Path]) -> list[str]:
    logs = (file.with_name(file.name + WRITE_AHEAD_LOG) for file in files)
    try:
        return [digest_file(file) for file in (*files, *(log for log in logs if log.is_file()))]
    except OSError as error:
        raise refuse_unreadable(files[0], error) from error


def _look_at(files: Sequence[Path]) -> list[tuple[int, int]]:
    try:
        return [(status.st_size, status.st_mtime_ns) for status in (file.stat() for file in files)]
    except OSError as error:
        raise refuse_unreadable(files[0], error) from error
