"""
Processors for structlog, and a filter for the standard library: what makes any program's lines like ours.

`processors` is for programs that configure structlog themselves, `LogFilter` for those that configure the standard library's logging.
"""

from __future__ import annotations

import json
import logging

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

from structlog.contextvars import get_contextvars, merge_contextvars

from celery_obs.telemetry.redaction import Redactor

from . import celery_records
from .lines import level_name, timestamp
from .trace_ids import trace_ids


__all__ = [
    "EventDict",
    "LogFilter",
    "Redaction",
    "Timestamp",
    "add_extras",
    "add_trace_ids",
    "facts_only",
    "log_processors",
    "take_json",
]


_FIRST: Final = ("task", "task_id", "queue", "retries", "correlation_id", "trace_id", "span_id")
_MOST: Final = 2_000  # Elements of all containers in one line.
EventDict: TypeAlias = MutableMapping[str, Any]

_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName", "data", "stack"}


def log_processors(*, redact_keys: Iterable[str] = ()) -> list[Any]:
    """
    Return processors for a program's own `structlog.configure`, to stand before its renderer, and after what makes text of exceptions.

    They add what an attempt has bound and the ids of the current span, and hide secrets.

    Args:
        redact_keys: Additional key names to redact.

    Since 0.1.
    """
    return [merge_contextvars, add_trace_ids, Redaction(Redactor(redact_keys))]


class LogFilter(logging.Filter):
    """
    For the handlers of a program's own logging: gives each record the attributes ``task``, ``task_id``, ``queue``, ``retries``, ``correlation_id``,
    ``trace_id`` and ``span_id``, for formatters to show, and keeps arguments, results and messages out of Celery's own records.

    Outside of a task they are empty.

    Args:
        redact_keys: Additional key names to redact.

    Since 0.1.
    """

    def __init__(self, *, redact_keys: Iterable[str] = ()) -> None:
        super().__init__()
        self._redactor = Redactor(redact_keys)

    def filter(self, record: logging.LogRecord) -> bool:
        """
        Amend *record*, and let it pass.
        """
        facts: dict[str, Any] = dict.fromkeys(_FIRST, "")
        facts.update((name, value) for name, value in get_contextvars().items() if name in facts)
        facts.update(trace_ids())
        content = celery_records.of(record)
        if content is not None:
            facts.update(content.facts)
            record.msg, record.args = self._redactor.text(content.event), None
            record.__dict__.pop("data", None)
            if not content.traceback:
                record.exc_info = record.exc_text = None
        for name, value in facts.items():
            if not record.__dict__.get(name):
                record.__dict__[name] = value
        return True


def take_json(_: Any, __: str, event_dict: EventDict) -> EventDict:
    """
    Take the facts out of a line that a user's own renderer has already made JSON of.
    """
    text = event_dict["event"]
    if isinstance(text, str) and text[:2] == '{"' and text[-1:] == "}":
        try:
            found = json.loads(text)
        except ValueError:
            return event_dict
        event_dict.update((key, value) for key, value in found.items() if not key.startswith("_"))
    return event_dict


def add_extras(_: Any, __: str, event_dict: EventDict) -> EventDict:
    """
    Add what a record of the standard library was given as ``extra``.
    """
    record = event_dict["_record"]
    for name, value in record.__dict__.items():
        if name not in _STANDARD and not name.startswith("_"):
            event_dict.setdefault(name, value)
    return event_dict


def add_trace_ids(_: Any, __: str, event_dict: EventDict) -> EventDict:
    """
    Add the ids of the current span.
    """
    for name, value in trace_ids().items():
        event_dict.setdefault(name, value)
    return event_dict


class Timestamp:
    """
    Add when a record was made, its level and its logger, as the first of its facts.
    """

    def __call__(self, _: Any, __: str, event_dict: EventDict) -> EventDict:
        """
        Return the facts in the order in which people read them.
        """
        record = event_dict["_record"]
        facts: EventDict = {"timestamp": timestamp(record.created), "level": level_name(record.levelno), "logger": record.name}
        facts["event"] = event_dict.pop("event", "")
        for name in _FIRST:
            if name in event_dict:
                facts[name] = event_dict.pop(name)
        facts.update(event_dict)
        return facts


class Redaction:
    """
    Hide the secrets in a line, and bound its size.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _: Any, __: str, event_dict: EventDict) -> EventDict:
        """
        Return a copy without secrets.
        """
        under, budget = self._redactor.under, [_MOST]
        return {name: value if name.startswith("_") else under(name, value, 0, budget) for name, value in event_dict.items()}


def facts_only(_: Any, __: str, event_dict: Mapping[str, Any]) -> EventDict:
    """
    Leave out what `structlog.stdlib.ProcessorFormatter` put in for processors.
    """
    return {name: value for name, value in event_dict.items() if not name.startswith("_")}
