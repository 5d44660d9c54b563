"""What TensorBoard itself reads from a file named by the first argument, as JSON: [[step, tag, number], ...] on standard output."""

import json
import sys

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader  # type: ignore[import-not-found]
from tensorboard.util import tensor_util  # type: ignore[import-not-found]

found = [
    (event.step, value.tag, float(tensor_util.make_ndarray(value.tensor)))
    for event in EventFileLoader(sys.argv[1]).Load()
    for value in event.summary.value
    if value.HasField("tensor") and value.metadata.plugin_data.plugin_name == "scalars"
]
json.dump(found, sys.stdout)
