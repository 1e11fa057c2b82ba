"""
Draw dashboards: ``python -m pictures [UIDS...] [--prometheus URL] [--minutes N] [--every SECONDS] [--choose NAME=VALUE] [--out DIR]``.

Without a Prometheus, everything that we ship is started on this machine, with the demo as what is observed, and drawn when it has run for long enough.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import signal
import sys
import tempfile
import time

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx

from .asking import Moment, Prometheus
from .pages import Page, read


if TYPE_CHECKING:
    from .drawing import Drawn


__all__ = ["OUT", "PAGES", "main", "render"]


ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ROOT / "deploy/grafana/dashboards"
OUT: Final = ROOT / "docs/dashboards"

_SERVERS: Final = ("redis-server", "prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "prometheus-redis-exporter")
"""
What is started where no Prometheus is named.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Draw what was asked for, and tell which panels show nothing.
    """
    parser = _parser()
    wanted = parser.parse_args(arguments)
    pages = _pages(wanted.uids, parser)
    chosen = _choices(wanted.choose, parser)
    _check(parser, needs_servers=wanted.prometheus is None)
    with _prometheus(wanted.prometheus, minutes=wanted.minutes) as url, contextlib.closing(Prometheus(url)) as prometheus:
        end = float(round(time.time()))
        moment = Moment(end - 60 * wanted.minutes, end, wanted.every)
        try:
            for page in pages:
                _tell(page, render(page, prometheus, moment, wanted.out, chosen=chosen), wanted.out)
        except (httpx.HTTPError, ValueError) as error:
            parser.error(f"Prometheus at {url} does not answer as expected: {error} Give the address of one that runs with --prometheus.")
    return 0


def render(page: Page, prometheus: Prometheus, moment: Moment, out: Path, *, chosen: Mapping[str, str] | None = None) -> tuple[Drawn, ...]:
    """
    Ask for *page* and write its picture to the folder *out*.

    Args:
        chosen: Values of variables of which one has to be chosen; the others have what Grafana chooses at first.

    Returns:
        The panels that were drawn.
    """
    from .drawing import Answers, draw

    single = {variable.name for variable in page.variables if not variable.many}
    values = {**prometheus.chosen(page), **{name: value for name, value in (chosen or {}).items() if name in single}}
    answers = [Answers(panel, {target: prometheus.ask(target, moment, values) for target in panel.targets}) for panel in page.panels]
    seen = {each.name: "All" if each.many else values[each.name] for each in page.variables}
    picture = draw(page, answers, moment, seen)
    out.mkdir(parents=True, exist_ok=True)
    picture.sheet.save(out / f"{page.uid}.png")
    return picture.panels


def _tell(page: Page, panels: Sequence[Drawn], out: Path) -> None:
    empty = [panel.title for panel in panels if not panel.series]
    print(f"{out / page.uid}.png: {len(panels)} panels" + (f"; nothing to show in: {', '.join(empty)}" if empty else ""))


def _pages(uids: Sequence[str], parser: argparse.ArgumentParser) -> list[Page]:
    there = {path.stem: path for path in sorted(PAGES.glob("*.json"))}
    unknown = sorted(set(uids) - set(there))
    if unknown:
        parser.error(f"There is no dashboard {', '.join(unknown)}. Expected some of: {', '.join(there)}.")
    return [read(there[uid]) for uid in uids or there]


def _choices(texts: Sequence[str], parser: argparse.ArgumentParser) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            parser.error(f"Nothing can be chosen by {text!r}. Expected a variable and its value, such as channel_type=airbnb.")
    return dict(text.split("=", 1) for text in texts)


def _check(parser: argparse.ArgumentParser, *, needs_servers: bool) -> None:
    """
    Refuse now what would fail after a quarter of an hour.
    """
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("Drawing needs matplotlib, and that needs Python 3.11. Install it with: pip install matplotlib")
    lacking = [program for program in _SERVERS if shutil.which(program) is None]
    if needs_servers and lacking:
        parser.error(
            f"Not installed: {', '.join(lacking)}. Install them as tests/run does, or name a Prometheus that runs with --prometheus."
        )


@contextlib.contextmanager
def _prometheus(url: str | None, *, minutes: float) -> Iterator[str]:
    """
    Give the address of the Prometheus to ask: the one at *url*, or one of our own that has watched the demo for some minutes.
    """
    if url is not None:
        yield url
        return
    from tests.live import LiveStack

    with tempfile.TemporaryDirectory(prefix="pictures-") as folder, LiveStack(Path(folder)) as live:
        live.begin()
        print(f"Everything runs; drawing begins in {minutes:g} minutes.", flush=True)
        time.sleep(60 * minutes)
        yield live.prometheus.url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pictures", description="Draw the dashboards as Grafana would show them.")
    parser.add_argument("uids", nargs="*", metavar="UID", help="which to draw, such as celery-queues; all by default")
    parser.add_argument(
        "--prometheus", metavar="URL", help="the one to ask; by default all that we ship is started here, and asked after a while"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="how far to look back; 15 by default")
    parser.add_argument(
        "--every", type=float, default=15.0, metavar="SECONDS", help="time between scrapes, as Grafana's data source has it; 15 by default"
    )
    parser.add_argument(
        "--choose",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what to choose where only one can be, such as channel_type=airbnb",
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="where the PNGs go; docs/dashboards by default")
    return parser


if __name__ == "__main__":
    # However it is ended, it takes down what it started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
