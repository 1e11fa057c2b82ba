"""
The runbooks of areas that other distributions bring: pages in their folders, written beside ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Final

from celery_obs.areas import AREAS, left_out_if_broken

from .links import Links
from .render import Output, marked


__all__ = ["FOLDER", "build", "pages"]


FOLDER: Final = "docs/runbooks"


def build(links: Links) -> Iterator[Output]:
    """
    Write each page.
    """
    for name, (source, text) in pages().items():
        yield Output(f"{FOLDER}/{name}.md", marked(source, text, comment="<!--", end=" -->"))


def pages() -> dict[str, tuple[str, str]]:
    """
    Return where each page comes from and its text, by the alert that it is about.
    """
    found: dict[str, tuple[str, str]] = {}
    for area in AREAS:
        if area.is_ours:
            continue
        with left_out_if_broken(area, "runbooks"):
            folder = files(area.package) / "runbooks"
            for page in folder.iterdir() if folder.is_dir() else ():
                if page.name.endswith(".md"):
                    found[page.name.removesuffix(".md")] = (f"{area.package.replace('.', '/')}/runbooks", page.read_text(encoding="utf-8"))
    return found
