"""Log runs with trackio, whose directory the environment variable TRACKIO_DIR names.

Reads {"project": NAME, "runs": {NAME: [[step, {key: value}], ...]}, "config": {key: value}, "is_killed": bool} from standard input.
A killed process leaves its last rows in the write-ahead log.
"""

import json
import os
import signal
import sqlite3
import sys
from pathlib import Path

import trackio  # type: ignore[import-not-found]

asked = json.load(sys.stdin)
for name, steps in asked["runs"].items():
    trackio.init(project=asked["project"], name=name, config=asked["config"], embed=False)
    for step, values in steps:
        trackio.log(values, step=step)
    trackio.finish()
if asked["is_killed"]:
    connection = sqlite3.connect(Path(os.environ["TRACKIO_DIR"], f"{asked['project']}.db"))
    connection.execute("UPDATE metrics SET step = step")
    connection.commit()
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
