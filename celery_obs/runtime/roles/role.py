"""
What all kinds of process have in common.
"""

from __future__ import annotations

import errno
import os

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.metrics_dir import default_metrics_dir, prepare_metrics_dir
from celery_obs.recorder.recorder import Identity, Recorder
from celery_obs.recorder.slots import Node, Slot


__all__ = ["Role"]


class Role(ABC):
    """
    What a process is.

    Attributes:
        is_celerys: Whether Celery started the process: then its errors are ours to report, and its logging is ours to tell of.

        runs_tasks: Whether attempts are what the process, or those that it forks, is there for.

        announces: Whether it tells sidecars which queues it publishes to; workers tell more, and their pools nothing.
    """

    is_celerys: ClassVar[bool] = False
    runs_tasks: ClassVar[bool] = False

    @property
    def announces(self) -> bool:
        return False

    @abstractmethod
    def identity(self) -> Identity:
        """
        Return who the process is, for the metric files.
        """

    @abstractmethod
    def forked(self) -> Role:
        """
        Return what a child is that this process forks.
        """

    def claimed(self, node: Node, slot: Slot) -> bool:
        """
        Take note of the slot that the process has now; tell whether it is to describe itself in the node's folder.
        """
        return True

    def claim(self, recorder: Recorder, directory: Path) -> None:
        """
        Claim a slot.  A directory that was configured has to be one; what lies in it, or in one that was not, ends no process: metrics are off then.

        Raises:
            ConfigurationError: if the metrics directory that was configured cannot be one.
        """
        try:
            prepare_metrics_dir(directory)
        except ConfigurationError as error:
            is_full = getattr(error.__cause__, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
            if not is_full and directory != default_metrics_dir(os.environ):
                raise
            recorder.switch_off(error)
            return
        if recorder.role != self.identity().role:
            recorder.close()  # It published before it turned out what it is.
        recorder.ready()
