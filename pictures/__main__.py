"""
Draw dashboards: ``python -m pictures [UIDS...] --prometheus URL [--minutes N] [--every SECONDS] [--out DIR]``.
"""

from __future__ import annotations

import argparse
import sys
import time

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from .asking import Moment, Prometheus
from .drawing import Answers, Drawn, draw
from .pages import Page, read


__all__ = ["main", "render"]


ROOT: Final = Path(__file__).parents[1]
PAGES: Final = ROOT / "deploy/grafana/dashboards"
OUT: Final = ROOT / "docs/dashboards"


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Draw what was asked for; return 1 if a panel shows nothing.
    """
    wanted = _parser().parse_args(arguments)
    moment = Moment(*(float(round(each)) for each in (time.time() - 60 * wanted.minutes, time.time())), wanted.every)
    with closing(Prometheus(wanted.prometheus)) as prometheus:
        empty = [
            f"{page.uid}: {panel.title}"
            for page in _chosen(wanted.uids)
            for panel in render(page, prometheus, moment, wanted.out)
            if not panel.series
        ]
    print(*empty, sep="\n")
    return 0


def render(page: Page, prometheus: Prometheus, moment: Moment, out: Path) -> tuple[Drawn, ...]:
    """
    Ask for *page* and write its picture to the folder *out*.
    """
    chosen = prometheus.chosen(page)
    answers = [Answers(panel, {target: prometheus.ask(target, moment, chosen) for target in panel.targets}) for panel in page.panels]
    picture = draw(page, answers, moment, chosen)
    out.mkdir(parents=True, exist_ok=True)
    picture.sheet.save(out / f"{page.uid}.png")
    return picture.panels


def _chosen(uids: Sequence[str]) -> Iterator[Page]:
    for path in sorted(PAGES.glob("*.json")):
        if not uids or path.stem in uids:
            yield read(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pictures")
    parser.add_argument("uids", nargs="*")
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--every", type=float, default=15.0)
    parser.add_argument("--out", type=Path, default=OUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
