"""
What a node says of itself: a small file beside its numbers, written once at its start and read by the doctor.

Nothing secret is in it: where data go is told without credentials.
"""

from __future__ import annotations

import json
import os

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .opening import new_file, read_file


__all__ = ["read_about", "write_about"]


_NAME: Final = "about"


def write_about(folder: Path, facts: Mapping[str, Any]) -> None:
    """
    Say *facts* in a node's *folder*; of several processes of a node, the last one's stay.

    Raises:
        OSError: if the file cannot be written.
    """
    fresh = folder / f"{_NAME}.{os.getpid()}"  # Several processes of a node may say it at once.
    with os.fdopen(new_file(fresh, mode=0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")
    fresh.replace(folder / _NAME)


def read_about(folder: Path) -> Mapping[str, Any] | None:
    """
    Return what a node said of itself; None where it said nothing that can be read.
    """
    try:
        facts = json.loads(read_file(folder / _NAME))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None
