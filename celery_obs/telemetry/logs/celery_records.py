"""
Celery's own log records: what may be said of them, and which of them say what our canonical line says.

They carry arguments, results and whole messages, in their text and beside it.  What comes out is a text made of the parts that are known
to be harmless, and the id and name of the task as facts.
"""

from __future__ import annotations

import logging
import re

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from celery_obs.telemetry.redaction import HIDDEN, LONGEST

from .context import running
from .lines import TASK


__all__ = ["SafeContent", "leave_out_what_we_write", "of"]


class SafeContent(NamedTuple):
    """
    What may be told of a record of Celery's.

    Attributes:
        event: Its text.

        facts: What is known besides.

        traceback: Whether the traceback that it has may be shown.
    """

    event: str
    facts: Mapping[str, Any]
    traceback: bool = True


_PLAIN: Final = frozenset({"id", "name", "runtime", "description", "hostname", "eta", "exc"})
"""
What is harmless, or is redacted like any text, of the facts that Celery's records of tasks carry.
"""

_BEHIND: Final = re.compile(rf"[:\s]*(?:{re.escape(HIDDEN)})?\s*$")

_MESSAGES: Final[tuple[tuple[str, str, int, bool], ...]] = (
    # What the template begins with; what is said instead; how many of its arguments are; whether its traceback may be shown.
    ("Received unregistered task of type", "Received unregistered task of type %s; the message was discarded.", 1, False),
    ("Received and deleted unknown message", "Received and deleted a message that is no task message.", 0, False),
    ("Received invalid task message", "Received an invalid task message; it was discarded.", 0, False),
    ("Can't decode message body", "Cannot decode the body of a message; it was discarded.", 0, False),
    ("TaskPool: Apply", "TaskPool: Apply", 0, True),
    ("Couldn't convert ETA", "Cannot convert the ETA %r to a timestamp.", 1, False),
    ("Cannot decode message", "Cannot decode a remote control message.", 0, False),
    ("pidbox received method", "Received a remote control command.", 0, True),
    ("UNABLE TO RESTORE", "Unable to restore messages.", 0, True),
)

_TASK_AND_ID: Final = re.compile(r"(?<![\w.<>-])([\w.<>-]{1,256})\[([0-9A-Za-z-]{8,64})\]")


def of(record: logging.LogRecord) -> SafeContent | None:
    """
    Return what may be told of *record*; None where it is not one of Celery's, and may be told as it is.
    """
    name = record.name
    if not name.startswith(("celery.", "kombu.")) or name.startswith(("celery.task", "celery.redirected")):
        return None
    template = record.msg if isinstance(record.msg, str) else ""
    data = record.__dict__.get("data")
    if isinstance(data, Mapping):
        return _of_task(template, data)
    for begins, instead, shown, traceback in _MESSAGES:
        if template.startswith(begins):
            arguments = record.args if isinstance(record.args, tuple) else ()
            return SafeContent(instead % tuple(arguments[:shown]) if len(arguments) >= shown else begins, {}, traceback)
    text = record.getMessage()
    found = _TASK_AND_ID.search(text[:LONGEST])
    return SafeContent(text, {"task": found[1], "task_id": found[2]} if found else {})


def _of_task(template: str, data: Mapping[str, Any]) -> SafeContent:
    shown = {key: value if key in _PLAIN else HIDDEN for key, value in data.items()}
    try:
        text = template % shown
    except (KeyError, ValueError, TypeError):  # A user's own template.
        text = f"Task {data.get('name')}[{data.get('id')}]"
    facts: dict[str, Any] = {"task": str(data.get("name") or ""), "task_id": str(data.get("id") or "")}
    runtime = data.get("runtime")
    if isinstance(runtime, float):
        facts["duration_ms"] = round(runtime * 1000.0, 3)
    return SafeContent(_BEHIND.sub("", text.strip()), facts)


def leave_out_what_we_write() -> None:
    """
    Have Celery's tracer say nothing of the attempts that have a canonical line.
    """
    logging.getLogger("celery.app.trace").addFilter(_has_no_line_of_ours)


def _has_no_line_of_ours(record: logging.LogRecord) -> bool:
    """
    Tell whether a record of the tracer's is about something else than the attempt that this thread is at.

    Tasks that we leave alone, and those that a task runs in its own process, keep their records.
    """
    attempt = running()
    if attempt is None or record.levelno > logging.ERROR:  # "Critical" is an error of Celery's own.
        return True
    data = record.__dict__.get("data")
    if not isinstance(data, Mapping) or data.get("id") != attempt.started.task_id:
        return True
    return not logging.getLogger(TASK).isEnabledFor(record.levelno)
