"""The command line: parse, call a workflow, print."""

from klaudit.cli.main import main

__all__ = ["main"]
