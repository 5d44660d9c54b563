"""Where the folders that travel with klaudit lie: inside the package in a wheel, beside it in a checkout."""

from pathlib import Path
from typing import Literal


def locate_asset(name: Literal["app", "db", "sample_runs"]) -> Path:
    """Directory of one of the folders that the wheel carries under `klaudit/`.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"klaudit's folder {name!r} lies neither in {package} nor beside it: install klaudit again")
