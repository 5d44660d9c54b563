"""Log runs with MLflow into an SQLite file.

Reads {"path": PATH, "runs": {NAME: [[step, {key: number}], ...]}, "params": {key: value}, "deleted": [NAME], "failed": [NAME]} from standard input.
"""

import json
import sys

import mlflow  # type: ignore[import-not-found]

asked = json.load(sys.stdin)
mlflow.set_tracking_uri(f"sqlite:///{asked['path']}")
mlflow.set_experiment("an experiment")
for name, steps in asked["runs"].items():
    run = mlflow.start_run(run_name=name)
    mlflow.log_params(asked["params"])
    for step, numbers in steps:
        mlflow.log_metrics(numbers, step=step)
    mlflow.end_run("FAILED" if name in asked["failed"] else "FINISHED")
    if name in asked["deleted"]:
        mlflow.delete_run(run.info.run_id)
