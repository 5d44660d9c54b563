import os
import subprocess
from pathlib import Path

import pytest
import torch

from klaudit.callbacks.code_state import PACKAGES, describe_git, find_versions, strip_login


def test_versions_are_those_that_are_installed() -> None:
    versions = find_versions()
    assert versions["torch"] == torch.__version__
    assert versions.keys() <= set(PACKAGES)


def run_git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture
def work_tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    run_git(tree, "init", "--initial-branch", "trunk")
    (tree / "train.py").write_text("1")
    run_git(tree, "add", ".")
    run_git(tree, "commit", "--message", "first")
    run_git(tree, "remote", "add", "origin", "https://somebody:hunter2@host.example:8443/owner/repository.git")
    return tree


def test_the_state_of_the_code(work_tree: Path) -> None:
    described = describe_git(work_tree)
    assert len(described.pop("commit")) == 40
    assert described == {"branch": "trunk", "is_dirty": False, "remote": "https://host.example:8443/owner/repository.git"}
    (work_tree / "out.log").write_text("untracked")
    assert describe_git(work_tree)["is_dirty"] is False
    (work_tree / "train.py").write_text("2")
    assert describe_git(work_tree)["is_dirty"] is True
    run_git(work_tree, "checkout", "--detach")
    assert describe_git(work_tree)["branch"] is None


def test_no_work_tree_no_git_and_a_slow_git_tell_nothing(work_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_git(tmp_path) == {}
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setattr("klaudit.callbacks.code_state.GIT_TIMEOUT_S", 0.1)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert describe_git(work_tree) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_git(work_tree) == {}


def test_a_repository_names_no_program_that_is_run(work_tree: Path, tmp_path: Path) -> None:
    run_git(work_tree, "config", "core.fsmonitor", f"touch {tmp_path / 'ran'}; false")
    describe_git(work_tree)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("url", "stripped"),
    [
        ("https://user:pa:ss@host/x.git", "https://host/x.git"),
        ("https://a_token@host/x.git", "https://host/x.git"),
        ("ssh://git@host:22/x.git", "ssh://host:22/x.git"),
        ("git@host:owner/x.git", "git@host:owner/x.git"),
        ("../x", "../x"),
        ("https://[", "(cannot be read, not recorded)"),
    ],
)
def test_a_remote_has_no_login(url: str, stripped: str) -> None:
    assert strip_login(url) == stripped
