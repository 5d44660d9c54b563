"""Log runs with TensorBoard's own writer, as torch's SummaryWriter does: an event for every number.

Reads {"directory": PATH, "runs": {NAME: [[step, {tag: number}], ...]}, "as_tensors": bool, "restart_at": step or null} from standard input.
A restart opens a second event file, which says from which step on it goes on.
"""

import json
import sys
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2  # type: ignore[import-not-found]
from tensorboard.plugins.scalar import metadata  # type: ignore[import-not-found]
from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-not-found]

STARTED_AT = 1_790_000_000.25
FLOAT = 1


def make_value(tag: str, number: float, as_tensors: bool) -> summary_pb2.Summary.Value:
    if not as_tensors:
        return summary_pb2.Summary.Value(tag=tag, simple_value=number)
    tensor = tensor_pb2.TensorProto(dtype=FLOAT, float_val=[number])
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata.create_summary_metadata("", ""))


asked = json.load(sys.stdin)
for name, steps in asked["runs"].items():
    directory = Path(asked["directory"], name)
    writer = EventFileWriter(str(directory))
    last = -1
    for step, numbers in steps:
        if step <= last:
            writer.close()
            writer = EventFileWriter(str(directory), filename_suffix=".again")
            writer.add_event(event_pb2.Event(step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)))
        last = step
        for tag, number in numbers.items():
            event = event_pb2.Event(wall_time=STARTED_AT + step, step=step)
            event.summary.value.append(make_value(tag, number, asked["as_tensors"]))
            writer.add_event(event)
        histogram = event_pb2.Event(wall_time=STARTED_AT + step, step=step)
        histogram.summary.value.append(summary_pb2.Summary.Value(tag="weights", histo=summary_pb2.HistogramProto(num=3, sum=1.0)))
        writer.add_event(histogram)
    writer.close()
