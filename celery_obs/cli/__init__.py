"""
The command line: ``celery-obs …``, and the same as ``celery -A proj obs …``.

Probes run every few seconds in every container, so `main` answers them before anything heavier than the standard library is loaded.
"""

from __future__ import annotations

import sys

from typing import Any


__all__ = ["main", "obs"]


def main() -> None:
    """
    Run the console script ``celery-obs``.
    """
    if sys.argv[1:2] == ["probe"]:
        from .probe import run  # noqa: PLC0415 -- see the module's docstring.

        sys.exit(run(sys.argv[2:]))
    from .group import obs  # noqa: PLC0415

    obs(prog_name="celery-obs")


def __getattr__(name: str) -> Any:
    """
    Load the click group when Celery asks for it, and not before.
    """
    if name == "obs":
        from .group import obs  # noqa: PLC0415

        return obs
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
