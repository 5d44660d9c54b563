"""One tracker, logged to: how long each call takes and what is left behind. Run by log_call.py in an environment of the trackers' own.

Reads {"tool": NAME, "n_calls": N, "pause_s": SECONDS, "directory": PATH, "is_watched": bool} from standard input and prints one line of
JSON. Nothing but the standard library is imported before the tool, so that the time and memory of its import are its own.
"""

import contextlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

METRICS = (
    "kl",
    "score",
    "beta",
    "loss/policy",
    "loss/value",
    "entropy",
    "ratio",
    "clip_fraction",
    "grad_norm",
    "learning_rate",
    "length",
    "speed",
)
Log = Callable[[int, dict[str, float]], object]
Started = tuple[Log, Callable[[], object]]
"""What logs one step, and what ends with everything on disk; of klaudit, that gives how many steps it counted as lost."""


def start_nothing(directory: Path) -> Started:
    """A function that does nothing: what the loop itself costs."""
    return (lambda step, numbers: None), (lambda: None)


def start_klaudit(directory: Path, durability: Literal["step", "batch"]) -> Started:
    from klaudit import start_run
    from klaudit.records import KLSeries

    series = KLSeries(estimator="k1", unit="nats_per_sequence", aggregation="batch_mean")
    run = start_run("bench", kl=series, batch_size=64, store=f"sqlite:///{directory / 'klaudit.db'}", durability=durability)

    def log(step: int, numbers: dict[str, float]) -> None:
        run.log(step=step, kl=numbers["kl"], metrics=numbers)

    def end() -> int:
        run.close()
        if run.failures > run.lost:
            raise SystemExit("klaudit failed: the figures mean nothing")
        return run.lost

    return log, end


def start_klaudit_step(directory: Path) -> Started:
    return start_klaudit(directory, "step")


def start_klaudit_batch(directory: Path) -> Started:
    return start_klaudit(directory, "batch")


def start_trackio(directory: Path) -> Started:
    os.environ |= {"TRACKIO_DIR": str(directory), "HF_HUB_OFFLINE": "1"}
    import trackio  # type: ignore[import-not-found]

    trackio.init(project="bench", name="bench", embed=False, auto_log_cpu=False, auto_log_gpu=False)
    return (lambda step, numbers: trackio.log(numbers, step=step)), trackio.finish


def start_wandb(directory: Path) -> Started:
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    import wandb  # type: ignore[import-not-found]

    run = wandb.init(
        dir=directory, project="bench", mode="offline", settings=wandb.Settings(silent=True, console="off", x_disable_stats=True)
    )
    return (lambda step, numbers: run.log(numbers, step=step)), run.finish


def start_tensorboard(directory: Path) -> Started:
    """As torch's SummaryWriter does, which writes through this class: an event for every number."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-not-found]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-not-found]
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-not-found]

    writer = EventFileWriter(str(directory))

    def log(step: int, numbers: dict[str, float]) -> None:
        for tag, number in numbers.items():
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=number)])
            writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    return log, writer.close


def start_mlflow(directory: Path, *, is_synchronous: bool) -> Started:
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    import mlflow  # type: ignore[import-not-found]

    mlflow.set_tracking_uri(f"sqlite:///{directory / 'mlflow.db'}")
    mlflow.create_experiment("bench", artifact_location=str(directory / "artifacts"))
    mlflow.set_experiment("bench")
    mlflow.start_run()

    def log(step: int, numbers: dict[str, float]) -> None:
        mlflow.log_metrics(numbers, step=step, synchronous=is_synchronous)

    def end() -> None:
        if not is_synchronous:
            mlflow.flush_async_logging()
        mlflow.end_run()

    return log, end


def start_mlflow_sync(directory: Path) -> Started:
    return start_mlflow(directory, is_synchronous=True)


def start_mlflow_async(directory: Path) -> Started:
    return start_mlflow(directory, is_synchronous=False)


TOOLS: dict[str, Callable[[Path], Started]] = {
    "nothing": start_nothing,
    "klaudit step": start_klaudit_step,
    "klaudit batch": start_klaudit_batch,
    "trackio": start_trackio,
    "W&B offline": start_wandb,
    "TensorBoard": start_tensorboard,
    "MLflow async": start_mlflow_async,
    "MLflow sync": start_mlflow_sync,
}


def refuse_other_machines(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook: nothing that is measured talks to another machine, or listens to one."""
    if event in ("socket.connect", "socket.bind"):
        opened, address = arguments
        if getattr(opened, "family", None) != socket.AF_UNIX and (
            not isinstance(address, tuple) or address[0] not in ("127.0.0.1", "::1", "localhost")
        ):
            os.write(2, f"{event} {address}\n".encode())
            os._exit(3)


def read_memory_kib(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (at most so far) of this process and its children, in KiB."""
    pids = [os.getpid()]
    for pid in pids:
        with contextlib.suppress(OSError):
            pids += [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(field))
    return total


def main() -> None:
    asked = json.load(sys.stdin)
    if asked["is_watched"]:
        sys.addaudithook(refuse_other_machines)
    directory = Path(asked["directory"])
    os.chdir(directory)
    generator = random.Random(0)
    rows = [{name: generator.gauss(1.0, 0.2) for name in METRICS} for _ in range(100)]
    before_kib, clock = read_memory_kib("VmRSS"), time.perf_counter
    # What a tool says goes to standard error, and the figures alone to standard output.
    with contextlib.redirect_stdout(sys.stderr):
        began_at = clock()
        log, end = TOOLS[asked["tool"]](directory)
        start_s = clock() - began_at
        seconds = []
        for step in range(1, asked["n_calls"] + 1):
            numbers = dict(rows[step % len(rows)])
            if asked["pause_s"]:
                time.sleep(asked["pause_s"])
            began_at = clock()
            log(step, numbers)
            seconds.append(clock() - began_at)
        memory_kib = read_memory_kib("VmHWM") - before_kib
        began_at = clock()
        n_lost = end()
        durable_s = clock() - began_at
    disk_kib = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1024
    figures = {"start_s": start_s, "durable_s": durable_s, "memory_mib": memory_kib / 1024, "disk_kib": disk_kib}
    json.dump({**figures, "seconds": seconds, "n_lost": n_lost if isinstance(n_lost, int) else 0}, sys.stdout)


if __name__ == "__main__":
    main()
