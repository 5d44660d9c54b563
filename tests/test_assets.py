from pathlib import Path
from typing import Literal

import pytest

from klaudit import assets
from klaudit.assets import locate_asset


@pytest.mark.parametrize(("name", "holds"), [("app", "streamlit_app.py"), ("db", "env.py"), ("sample_runs", "record.py")])
def test_the_folders_that_travel_with_klaudit_are_found(name: Literal["app", "db", "sample_runs"], holds: str) -> None:
    assert (locate_asset(name) / holds).is_file()


def test_in_a_wheel_they_lie_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("klaudit/db", "db"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.setattr(assets, "__file__", str(tmp_path / "klaudit" / "assets.py"))
    assert locate_asset("db") == tmp_path / "klaudit" / "db"
    with pytest.raises(FileNotFoundError, match="install klaudit again"):
        locate_asset("app")
