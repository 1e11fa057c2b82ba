"""
What a node says of itself: a small file beside its numbers, written once at its start and read by the doctor.

Nothing secret is in it: where data go is told without credentials.
"""

from __future__ import annotations

import contextlib
import json
import os

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final


__all__ = ["read_about", "write_about"]


_NAME: Final = "about"
_LONGEST: Final = 64 * 1024


def write_about(folder: Path, facts: Mapping[str, Any]) -> None:
    """
    Say *facts* in a node's *folder*; of several processes of a node, the last one's stay.

    Raises:
        OSError: if the file cannot be written.
    """
    fresh = folder / f"{_NAME}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()  # Left by a process of that number that died in the middle of this.
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")
    fresh.replace(folder / _NAME)


def read_about(folder: Path) -> Mapping[str, Any] | None:
    """
    Return what a node said of itself; None where it said nothing that can be read.
    """
    try:
        descriptor = os.open(folder / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            facts = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None
