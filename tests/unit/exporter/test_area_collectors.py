"""
What the sidecar asks at each scrape comes from the areas.
"""

from __future__ import annotations

import sys

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_obs import areas
from celery_obs.areas import AREAS, Area
from celery_obs.areas.channels.collector import ClusterCollector
from celery_obs.areas.channels.connections.state import Snapshot
from celery_obs.areas.channels.overview import Overview
from celery_obs.exporter.scrape import InternalErrors
from celery_obs.exporter.server import Options, build_collectors
from celery_obs.state.broker import Broker


COLLECTOR = """
from celery_obs.exporter.exposition import Page

class Bookings:
    name = "bookings"
    def collect(self):
        return Page("", "")

def collectors(sidecar):
    yield Bookings()
"""

GAUGES = """
from celery_obs.vocabulary.spec import Metric

OPEN = Metric(kind="gauge", name="property_open", help="Which property is open? 1 where it is.", labels=("property",))

def gauges(series):
    yield series.by_name(OPEN, {"harbour": 1.0}, max)
"""


def nothing_known() -> Overview:
    """
    Return a cluster without connections.
    """
    snapshot = Snapshot(connections={}, last_syncs={}, errors={}, tokens={}, drift={}, last_runs={}, reviews={})
    return Overview(snapshot=snapshot, channels=(), breakers={}, pauses={}, rate_limits={})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    Return the folder of an area that another distribution brings.
    """
    package = tmp_path / "property_bookings"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(areas, "AREAS", (*AREAS, Area("bookings", package.name)))
    yield package
    for name in [each for each in sys.modules if each.partition(".")[0] == package.name]:
        del sys.modules[name]


def names(options: Options) -> list[str]:
    """
    Return the names of the collectors that *options* ask for.
    """
    return [each.name for each in build_collectors(options, InternalErrors(), overview=nothing_known if options.shares_state else None)]


def test_what_one_sidecar_shows_comes_before_what_all_share(tmp_path: Path) -> None:
    """
    Where two show one series, the first one wins.
    """
    broker = Broker(url="redis://127.0.0.1:1/0")

    everything = names(Options(metrics_dir=tmp_path, multiproc_dir=tmp_path, brokers=(broker,)))

    assert ["usage", "workers", "ourselves", "multiproc", "queues", "cluster"] == everything
    assert ["usage", "workers", "ourselves"] == names(Options(metrics_dir=tmp_path, scope="worker"))
    assert ["ourselves", "queues", "cluster"] == names(Options(scope="cluster", brokers=(broker,)))


def test_an_area_of_another_distribution_has_a_collector(folder: Path, tmp_path: Path) -> None:
    """
    No room names the area; its file is enough.
    """
    (folder / "collector.py").write_text(COLLECTOR)

    assert ["usage", "workers", "ourselves", "bookings"] == names(Options(metrics_dir=tmp_path, scope="worker"))


def test_a_collector_that_cannot_be_made_is_left_out(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    The area's own mistake costs the area only.
    """
    (folder / "collector.py").write_text("def collectors(sidecar):\n    raise OSError('no door')\n")

    assert ["usage", "workers", "ourselves"] == names(Options(metrics_dir=tmp_path, scope="worker"))
    assert "no door" in caplog.text


def test_an_area_of_another_distribution_has_gauges_of_what_is_shared(folder: Path) -> None:
    """
    They are on the page beside ours, of the same read.
    """
    (folder / "gauges.py").write_text(GAUGES)

    page = ClusterCollector(nothing_known, folded=InternalErrors()).collect()

    assert 'property_open{property="harbour"} 1.0\n' in page.text


def test_gauges_that_fail_cost_their_area_only(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    The scrape goes on without them.
    """
    (folder / "gauges.py").write_text("def gauges(series):\n    raise KeyError('lost')\n")

    page = ClusterCollector(nothing_known, folded=InternalErrors()).collect()

    assert "" == page.text
    assert "lost" in caplog.text
