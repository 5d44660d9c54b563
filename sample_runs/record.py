"""Make the recorded runs again: `python sample_runs/record.py truth|train NAME ...`, from the project's root.

A NAME is a directory here: `adaptive-beta`, `broken/beta-zero`, `sweep/beta-0.1`. `truth` writes truth.json from config.toml, to be committed
before `train` records the run (about ten minutes each on two cores). Runs of the sweep have no truth: nothing is planted in them.
"""

import argparse
from pathlib import Path

from klaudit.cli.progress import track_training
from klaudit.demo.recipe import read_recipe
from klaudit.demo.recording import record_sample_run, record_steps, require_truth, write_truth

HERE = Path(__file__).parent


def main() -> None:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("truth", "train"))
    parser.add_argument("names", nargs="+", metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.names:
        directory = HERE / name
        if arguments.what == "truth":
            write_truth(directory)
            continue
        with track_training(read_recipe(directory / "config.toml").ppo.max_steps) as on_step:
            if directory.parent == HERE:
                record_sample_run(directory, on_step=on_step)
                continue
            if directory.parent.name == "broken":
                require_truth(directory)
            record_steps(directory, on_step=on_step)


if __name__ == "__main__":
    main()
