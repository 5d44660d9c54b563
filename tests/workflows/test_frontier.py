import math

import pytest

from klaudit.errors import RunNotFound
from klaudit.store import open_store
from klaudit.workflows.frontier import study_stored_runs
from klaudit.workflows.pages import open_pages
from tests.workflows.recordings import begin, record_all


@pytest.fixture
def swept_url(store_url: str) -> str:
    """A store with two runs whose score stands still at 0.5 reward while d grows."""
    for name, reach in (("near", 1.0), ("far", 4.0)):
        with begin(store_url, name) as recorder:
            record_all(recorder, [reach * (1 - math.exp(-at / 4)) for at in range(8)])
    return store_url


def test_runs_are_studied_in_the_order_in_which_they_are_named_each_once(swept_url: str) -> None:
    with open_store(swept_url, read_only=True) as store:
        study = study_stored_runs(store, ["far", "near", store.runs.get("far").id])
    assert list(dict.fromkeys(one.run for one in study.points)) == ["far", "near"]
    assert len(study.points) == 16
    assert [one.name for one in study.swept] == ["far", "near"]
    assert study.score.fits[0].alpha == pytest.approx(0, abs=1e-9)


def test_the_page_reads_what_the_command_reads(swept_url: str) -> None:
    pages = open_pages(swept_url)
    view = pages.show_frontier([pages.find_run("near").id])
    assert view.names == ("near",)
    assert view.series[0].n_points == 8
    with pytest.raises(RunNotFound, match="nobody"):
        pages.show_frontier(["nobody"])
