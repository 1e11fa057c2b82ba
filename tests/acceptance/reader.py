"""
Who follows a page of the documentation: types its commands into a shell, in the folder of a project.
"""

from __future__ import annotations

import os
import shlex
import sys

from collections.abc import Mapping
from pathlib import Path

from tests.pages import lines_of
from tests.servers import free_port, wait_until
from tests.workers import Process

from .conftest import Stage


__all__ = ["Reader"]


class Reader:
    """
    Follow the commands of a page.

    Args:
        stage: Where the processes run.

        page: What is followed.

        here: Texts of the page, each with what stands for it here.

    Attributes:
        address: Where the sidecar is that the page has its reader start.
    """

    def __init__(self, stage: Stage, page: Path, here: Mapping[str, str] | None = None) -> None:
        self.stage = stage
        self.address = f"127.0.0.1:{free_port()}"
        self._here = {"redis://localhost:6379/0": stage.redis.url, "localhost:19540": self.address, **(here or {})}
        self._all = [line for line in lines_of(page.read_text(encoding="utf-8")) if not line.startswith("pip install")]
        self._left = set(self._all)
        self.environ = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(stage.folder),
            "CELERY_OBS_WEB_LISTEN_ADDRESS": self.address,
            "CELERY_OBS_EXPORTER_URL": f"http://{self.address}",
        }

    def start(self, *words: str, more: str = "", says: str = "") -> Process:
        """
        Start the command of the page that has *words* in it, with *more* behind it, and wait until it *says* something.
        """
        line = f"{self._take(words)} {more}"
        log = self.stage.folder / f"{_name(words)}.log"
        before = len(log.read_text()) if log.exists() else 0
        process = self.stage.process("sh", "-c", f"exec {line}", name=_name(words), **self.environ)

        def has_said() -> bool:
            assert process.is_alive(), log.read_text()
            return says in log.read_text()[before:]

        wait_until(has_said, within=40, what=f"{line} to say {says!r}")
        return process

    def run(self, *words: str) -> tuple[int, str]:
        """
        Run the command of the page that has *words* in it to its end; return its exit code and what it wrote.
        """
        return self.type(self._take(words), name=_name(words))

    def type(self, line: str, *, name: str = "typed") -> tuple[int, str]:
        """
        Run a command that is on no page.
        """
        return self.stage.run("sh", "-c", line, name=name, **self.environ)

    def export(self) -> None:
        """
        Export what the page has its reader export.
        """
        for line in [line for line in self._all if line.startswith("export ")]:
            self._left.discard(line)
            name, _, value = shlex.split(line)[1].partition("=")
            self.environ[name] = self.here(value)

    def left(self) -> list[str]:
        """
        Return the commands of the page that were not followed, but for those that install.
        """
        return [line for line in self._all if line in self._left]

    def here(self, text: str) -> str:
        """
        Return what the page has its reader write or type, for this machine.
        """
        for there, here in self._here.items():
            text = text.replace(there, here)
        return text

    def _take(self, words: tuple[str, ...]) -> str:
        line = next((line for line in self._all if set(words) <= set(line.split())), None)
        assert line is not None, f"No command with {words} among {self._all}."
        self._left.discard(line)
        return self.here(line)


def _name(words: tuple[str, ...]) -> str:
    return "-".join(word.strip("-") for word in words)
