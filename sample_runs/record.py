"""Make the sample runs again: `python sample_runs/record.py truth|train NAME ...`, from the project's root.

`truth` writes truth.json from config.toml, to be committed before `train` records the run (about ten minutes each on two cores).
"""

import argparse
from pathlib import Path

from klaudit.cli.progress import track_training
from klaudit.demo.recipe import read_recipe
from klaudit.demo.recording import record_sample_run, write_truth

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
            record_sample_run(directory, on_step=on_step)


if __name__ == "__main__":
    main()
