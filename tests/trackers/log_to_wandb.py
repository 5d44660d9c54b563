"""Log a run with W&B, offline, into the directory that the first argument names."""

import sys

import wandb  # type: ignore[import-not-found]

with wandb.init(mode="offline", dir=sys.argv[1], project="a project", settings=wandb.Settings(silent=True)) as run:
    run.log({"kl": 0.5})
