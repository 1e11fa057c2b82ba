"""
A shipped page is drawn from a real Prometheus that knows half an hour of every metric.
"""

from __future__ import annotations

import contextlib
import time

from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_obs.rules.dashboards.pages import DASHBOARDS
from pictures.__main__ import PAGES, main, render
from pictures.asking import Moment, Prometheus
from pictures.pages import read
from tests.integration.rules.test_panels import history
from tests.monitoring import PrometheusServer


pytest.importorskip("matplotlib", reason="matplotlib draws, and needs Python 3.11.")

pytestmark = pytest.mark.integration

OVERVIEW = PAGES / "channel-manager-overview.json"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    The address of a Prometheus that knows the last half hour.
    """
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), past=history(time.time() - 2)) as server:
        yield server.url


@pytest.fixture
def prometheus(url: str) -> Iterator[Prometheus]:
    """
    That Prometheus, to be asked.
    """
    with contextlib.closing(Prometheus(url)) as asked:
        yield asked


def last_minutes(minutes: float) -> Moment:
    """
    Look back from now, at one sample a minute.
    """
    now = float(round(time.time()))
    return Moment(now - 60 * minutes, now, 60.0)


def test_every_panel_of_the_overview_is_drawn(prometheus: Prometheus, tmp_path: Path) -> None:
    """
    Each has its title and as many series as there are channels, outcomes or errors; the picture is a small file.
    """
    from PIL import Image

    panels = {panel.title: panel.series for panel in render(read(OVERVIEW), prometheus, last_minutes(20), tmp_path)}

    [page] = [page for page in DASHBOARDS if page.uid == OVERVIEW.stem]
    assert [panel.title for panel in page.panels()] == list(panels)
    assert (1, 2, 2, 2) == tuple(
        panels[title] for title in ("Active connections", "Syncs per minute by channel", "Channel health", "Circuit breakers")
    )
    assert [] == [title for title, series in panels.items() if not series]
    picture = tmp_path / "channel-manager-overview.png"
    assert picture.stat().st_size < 150_000
    with Image.open(picture) as image:
        assert ("PNG", "P") == (image.format, image.mode)


def test_all_jobs_are_those_of_ours(prometheus: Prometheus) -> None:
    """
    What a reader sees first are our exporters, and not all that Prometheus scrapes; of channels one has to be chosen.
    """
    assert {"job": "celery\\\\-obs", "channel_type": "airbnb"} == prometheus.chosen(read(PAGES / "channel-manager-platform.json"))


def test_the_command_says_what_it_drew(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    It names the file, and the panels that show nothing.
    """
    page = "celery-obs-slo"

    assert 0 == main([page, "--prometheus", url, "--out", str(tmp_path), "--every", "60"])
    said = capsys.readouterr().out
    assert f"{tmp_path / page}.png: 9 panels; nothing to show in: Budgets overdrawn" in said
    assert [f"{page}.png"] == [path.name for path in tmp_path.iterdir()]


def test_what_is_not_installed_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """
    What is lacking is said at once, not after a quarter of an hour.
    """
    monkeypatch.setenv("PATH", "")

    with pytest.raises(SystemExit):
        main([])

    assert "Not installed: redis-server, prometheus, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["celery-quues"], "There is no dashboard celery-quues. Expected some of: celery-beat, "),
        (["--choose", "airbnb"], "Nothing can be chosen by 'airbnb'. Expected a variable and its value, such as channel_type=airbnb."),
        (["celery-beat", "--prometheus", "http://127.0.0.1:9"], "Prometheus at http://127.0.0.1:9 does not answer"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    It exits with 2, says what was expected, and shows no traceback.
    """
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path)])

    assert 2 == ended.value.code
    assert problem in capsys.readouterr().err
