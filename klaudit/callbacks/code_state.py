"""The code that trains: versions of packages, and state of the work tree."""

import importlib.metadata
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

PACKAGES = (
    "klaudit", "torch", "transformers", "tokenizers", "safetensors", "accelerate", "peft", "trl", "verl", "openrlhf", "unsloth", "deepspeed", "vllm",
    "sglang", "flash-attn", "bitsandbytes", "datasets", "ray", "numpy",
)  # fmt: skip
"""Whose versions can change what a training does."""

GIT_TIMEOUT_S = 2.0


def find_versions() -> dict[str, str]:
    """Versions of the installed packages among PACKAGES; none of them is imported."""
    versions: dict[str, str] = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def describe_git(directory: Path) -> dict[str, Any]:
    """Commit, branch, whether tracked files differ, and remote of the work tree around a directory; empty where there is none, or no git."""
    commit = ask_git(directory, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return {}
    changes = ask_git(directory, "status", "--porcelain", "--untracked-files=no")
    remote = ask_git(directory, "config", "--get", "remote.origin.url")
    return {
        "commit": commit,
        "branch": ask_git(directory, "symbolic-ref", "--quiet", "--short", "HEAD"),
        "is_dirty": None if changes is None else bool(changes),
        "remote": None if remote is None else strip_login(remote),
    }


def ask_git(directory: Path, *arguments: str) -> str | None:
    """What a git command prints; None where it fails, is not there, or takes longer than GIT_TIMEOUT_S. It takes no lock and asks nobody."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # A repository's own settings may name a program to be run.
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def strip_login(url: str) -> str:
    """A URL without the user and the password in it; `git@host:path` stays."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(cannot be read, not recorded)"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else url
