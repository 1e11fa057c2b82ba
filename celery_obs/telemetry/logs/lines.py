"""
Our own lines: how they are written, whichever package is in charge of logging.

Where that is us, and no other handler listens, a line goes to our handler at once, as JSON.  Where the program has configured structlog, a line goes
through that, and looks like the program's others.  Where neither is so, it is JSON through the standard library's logger.
"""

from __future__ import annotations

import json
import logging
import time

from collections.abc import Mapping
from typing import Any, Final


__all__ = ["SYNC", "TASK", "Line", "LineHandler", "direct", "encode", "level_name", "timestamp", "to_json", "write", "write_text"]


TASK: Final = "celery_obs.task"
SYNC: Final = "celery_obs.sync"

_root: Final = logging.getLogger()
encode: Final = json.JSONEncoder(default=str, allow_nan=False).encode


class LineHandler(logging.Handler):
    """
    A handler that takes lines that are ready, too.
    """

    def write(self, logger: str, line: str) -> None:
        """
        Write *line*, which comes from *logger*.
        """


class _Direct:
    """
    The way around the standard library, where there is one.

    Attributes:
        handler: Ours, which writes JSON; None where the application is in charge, or lines are for people.

        is_ours: Whether we are in charge.
    """

    handler: LineHandler | None = None
    is_ours = False


direct: Final = _Direct()


class Line(dict[str, Any]):
    """
    The facts of a line, made by us and free of secrets, as the message of a log record.
    """

    def __str__(self) -> str:
        """
        Return the line for handlers that know nothing of it.
        """
        return to_json(self)


def to_json(facts: Mapping[str, Any]) -> str:
    """
    Return *facts* as one line of JSON.

    Raises:
        ValueError, TypeError, RecursionError: if they hold a value that JSON does not have.
    """
    return encode(facts)


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
    if not direct.is_ours:
        import structlog  # noqa: PLC0415 -- only a process that has something to say needs it.

        if structlog.is_configured():
            # Asked anew each time: a logger that is kept would keep the configuration that it was made with.
            structlog.get_logger(logger).log(level, event, **facts)
            return
    if log.isEnabledFor(level):
        log.handle(logging.LogRecord(logger, level, "", 0, Line({"event": event, **facts}), None, None))


def write_text(log: logging.Logger, level: int, event: str, now: float, text: str) -> None:
    """
    Write a line whose facts are JSON already, and whose level is enabled.

    Args:
        now: When it was made, in seconds since the epoch.

        text: What is inside the braces: ``"task": "shop.sell", "retries": 0``.
    """
    handler = direct.handler
    if handler is not None and _is_alone(handler, log):
        name = log.name
        handler.write(
            name, f'{{"timestamp": "{timestamp(now)}", "level": "{level_name(level)}", "logger": "{name}", "event": "{event}", {text}}}'
        )
    else:
        write(log.name, level, event, json.loads(f"{{{text}}}"))


def _is_alone(handler: LineHandler, log: logging.Logger) -> bool:
    """
    Tell whether what *log* says would come to *handler* and to no other handler.
    """
    handlers = _root.handlers
    if len(handlers) != 1 or handlers[0] is not handler or log.handlers or log.filters or not log.propagate:
        return False
    parent = log.parent
    return parent is None or parent is _root or not parent.handlers


_names: Final[dict[int, str]] = {}
_second: tuple[int, str] = (0, "")


def level_name(level: int) -> str:
    """
    Return the name of a level as it stands in lines.
    """
    name = _names.get(level)
    if name is None:
        name = _names[level] = logging.getLevelName(level).lower()
    return name


def timestamp(now: float) -> str:
    """
    Return *now*, in seconds since the epoch, as it stands in lines: ``2026-01-02T03:04:05.678901Z``.
    """
    global _second  # noqa: PLW0603 -- all lines of a second share this text; the tuple is changed at once, whatever threads do.
    whole = int(now)
    second, text = _second
    if whole != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        _second = whole, text
    return f"{text}.{int((now - whole) * 1e6):06d}Z"
