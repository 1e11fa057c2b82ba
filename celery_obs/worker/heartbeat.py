"""
The heartbeat file: one line for probes, its modification time the last beat.

``celery-obs probe`` reads it with the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os

from pathlib import Path


__all__ = ["Heartbeat"]


class Heartbeat:
    """
    A heartbeat file.

    Args:
        folder: The node's folder.

        role: ``worker`` or ``beat``.
    """

    def __init__(self, folder: Path, *, role: str) -> None:
        self._path = folder / "heartbeat"
        self._role = role

    def write(self, *, ready: bool) -> None:
        """
        Say who beats, and whether it is ready to work.

        Raises:
            OSError: if the file cannot be written.
        """
        fresh = self._path.with_name("heartbeat.new")
        fresh.write_text(json.dumps({"pid": os.getpid(), "role": self._role, "ready": ready}) + "\n")
        fresh.replace(self._path)

    def beat(self) -> None:
        """
        Beat once.

        Raises:
            OSError: if the file or its folder is gone.
        """
        os.utime(self._path)

    def remove(self) -> None:
        """
        Take the file away, at an orderly end.
        """
        with contextlib.suppress(OSError):
            self._path.unlink()

    def remove_if_dead(self) -> None:
        """
        Take the file away if the process that wrote it is gone.
        """
        try:
            os.kill(int(json.loads(self._path.read_text())["pid"]), 0)
        except ProcessLookupError:
            self.remove()
        except (OSError, ValueError, KeyError, TypeError):  # There is none, it is none, or its process is another user's.
            return
