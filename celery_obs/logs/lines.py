"""
Our own lines: how they are written, whoever is in charge of logging.

Where that is us, a line goes to its handlers as facts, and our formatter makes JSON of them at once.  Where the program has configured structlog,
a line goes through that, and looks like the program's others.  Where neither is so, it is JSON through the standard library's logger.
"""

from __future__ import annotations

import logging

from collections.abc import Mapping
from typing import Any, Final


__all__ = ["SYNC", "TASK", "Line", "write"]


TASK: Final = "celery_obs.task"
SYNC: Final = "celery_obs.sync"


class Line(dict[str, Any]):
    """
    The facts of a line, made by us and free of secrets, as the message of a log record.

    Attributes:
        is_ours: Whether our formatter is there to write it.
    """

    is_ours = False

    def __str__(self) -> str:
        """
        Return the line for handlers that know nothing of it.
        """
        return to_json(self)


def to_json(facts: Mapping[str, Any]) -> str:
    """
    Return *facts* as one line of JSON.
    """
    import structlog  # noqa: PLC0415 -- only a process that has something to say needs it.

    return str(structlog.processors.JSONRenderer(default=str)(None, "", dict(facts)))


def write(logger: str, level: int, event: str, facts: Mapping[str, Any]) -> None:
    """
    Write a line.

    Args:
        logger: Name of the logger, `TASK` or `SYNC`.

        level: Of the standard library's.

        event: What happened.

        facts: What is known of it.
    """
    log = logging.getLogger(logger)
    if not Line.is_ours:
        import structlog  # noqa: PLC0415 -- as above.

        if structlog.is_configured():
            # Asked anew each time: a logger that is kept would keep the configuration that it was made with.
            structlog.get_logger(logger).log(level, event, **facts)
            return
    if log.isEnabledFor(level):
        line = Line(event=event)
        line.update(facts)
        log.handle(logging.LogRecord(logger, level, "", 0, line, None, None))
