"""
``/api/v1/history``: what the sidecar remembers of its own page.
"""

from __future__ import annotations

import base64
import json
import logging
import math

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_obs.exporter.history.declared import Name
from celery_obs.exporter.history.file import FINE, MINUTE, Columns, Moment, moment
from celery_obs.exporter.history.of_areas import declared
from celery_obs.exporter.history.view import Asked, Lines, look
from celery_obs.exporter.sharing import BusyError, SharedWork
from celery_obs.telemetry.redaction import without_secrets

from .answers import Refusal, answer, refuse


__all__ = ["PATH", "HistoryApi", "asked", "described", "labels", "told"]


PATH: Final = "/api/v1/history"

MOST: Final = 500
"""
Series in one answer at most.
"""

MOST_SECONDS: Final = 7200.0
MOST_VALUES: Final = 100_000
"""
Values in one answer at most.
"""

log = logging.getLogger("celery_obs.exporter")

_MOST_WAITING: Final = 8
_LONGEST: Final = 500
_PARAMETERS: Final[Mapping[str, str]] = {
    "series": "Shell pattern of the series' name, such as celery_task_*.",
    "since": f"How many seconds to look back, up to {MOST_SECONDS:.0f}, as a negative number; -{FINE} by default.",
    "step": f"Seconds between two values: below {MINUTE:.0f} for the last {FINE} s only.  By default 1 for those, else {MINUTE:.0f}.",
    "limit": f"Maximum number of series, from 1 to {MOST}.",
    "after": "The value of following in the answer before this one.",
}


def labels() -> tuple[str, ...]:
    """
    Return the labels that series of the history have: each is a parameter, too.
    """
    return tuple(sorted({label for each in declared() for label in each.labels}))


class HistoryApi:
    """
    Answers what was.

    Args:
        read: Reads the history, by the second or by the minute; None where none is kept, and every answer says so.

        now: Tells the time.
    """

    def __init__(self, read: Callable[[bool], Columns] | None, *, now: Callable[[], Moment] = moment) -> None:
        self._read = read
        self._now = now
        self._labels = labels()
        self._work = SharedWork("celery-obs-history-api", threads=1, most=_MOST_WAITING)

    def routes(self) -> list[Route]:
        """
        Make the route.
        """
        return [Route(PATH, self._answer, methods=["GET"])]

    async def _answer(self, request: Request) -> Response:
        try:
            given = request.query_params
            wanted = asked(given, self._labels)
            found = await self._work.run(tuple(sorted(given.multi_items())), lambda: self._look(wanted))
        except Refusal as refusal:
            return refuse(refusal)
        except ValueError as error:
            return refuse(Refusal(400, "bad_parameter", str(error)))
        except BusyError:
            return refuse(Refusal(503, "busy", "Too many questions wait. Try again in 5 s.", Retry_After="5"))
        except Exception as error:
            log.error("The history failed with an unexpected error.", exc_info=without_secrets(error))  # noqa: TRY400 -- shown without secrets.
            return refuse(Refusal(500, "internal", f"This is a bug in celery_obs ({type(error).__name__}); the exporter's log has more."))
        return answer(told(found))

    def _look(self, wanted: Asked) -> Lines:
        if self._read is None:
            message = "This exporter keeps no history. Start it with --history-bytes above 0."
            raise Refusal(404, "no_history", message)
        try:
            columns = self._read(wanted.step < MINUTE)
        except (OSError, ValueError) as error:
            raise Refusal(503, "history_unavailable", f"The history cannot be read: {error}.") from None
        return look(columns, wanted, now=self._now())


def asked(given: Mapping[str, str], known: Sequence[str]) -> Asked:
    """
    Read what is asked for.

    Args:
        given: Parameters.

        known: The labels that there are.

    Raises:
        ValueError: if it is invalid; the message says what was expected.
    """
    for name, value in given.items():
        if name not in _PARAMETERS and name not in known:
            message = f"There is no parameter {name[:50]!r}. Expected some of {', '.join((*_PARAMETERS, *known))}."
            raise ValueError(message)
        if len(value) > _LONGEST:
            message = f"{name} has {len(value)} characters. Expected at most {_LONGEST}."
            raise ValueError(message)
    seconds = -_number(given, "since", -float(FINE))
    if not 1 <= seconds <= MOST_SECONDS:
        message = f"since is {given['since'][:50]!r}. Expected seconds ago as a negative number, from -{MOST_SECONDS:.0f} to -1."
        raise ValueError(message)
    step = _number(given, "step", 1.0 if seconds <= FINE else MINUTE)
    least = 1.0 if seconds <= FINE else MINUTE
    if not least <= step <= MOST_SECONDS:
        message = f"step is {given['step'][:50]!r}. Expected from {least:.0f} to {MOST_SECONDS:.0f} seconds for the last {seconds:.0f} s."
        raise ValueError(message)
    most = max(1, min(MOST, int(MOST_VALUES // math.ceil(seconds / step))))
    limit = _number(given, "limit", float(min(100, most)))
    if limit != int(limit) or not 1 <= limit <= most:
        message = f"The limit is {given['limit'][:50]}. Expected a whole number from 1 to {most}; more with fewer values each."
        raise ValueError(message)
    wanted = {name: given[name] for name in known if name in given}
    series = given.get("series", "")

    def wants(name: Name) -> bool:
        values = dict(name.labels)
        return (not series or fnmatchcase(name.metric, series)) and all(
            label in values and fnmatchcase(values[label], pattern) for label, pattern in wanted.items()
        )

    return Asked(wants, seconds, step, int(limit), _name(given["after"]) if given.get("after") else None)


def _number(given: Mapping[str, str], name: str, default: float) -> float:
    text = given.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        message = f"{name} is {text[:50]!r}. Expected a number."
        raise ValueError(message)
    return number


def told(found: Lines) -> Mapping[str, object]:
    """
    Return what was found, for JSON.
    """
    return {
        "start": datetime.fromtimestamp(found.start, timezone.utc).isoformat(),
        "step_seconds": found.step,
        "series": [
            {
                "name": line.name.metric,
                "labels": dict(line.name.labels),
                "unit": "per second" if line.name.grows else "value",
                "values": [None if value is None or not math.isfinite(value) else value for value in line.values],
            }
            for line in found.lines
        ],
        "following": _place(found.lines[-1].name) if found.more and found.lines else None,
    }


def _place(name: Name) -> str:
    return base64.urlsafe_b64encode(json.dumps(name).encode()).decode()


def _name(after: str) -> Name:
    try:
        metric, pairs, grows, fold = json.loads(base64.urlsafe_b64decode(after.encode()))
        return Name(str(metric), tuple((str(label), str(value)) for label, value in pairs), bool(grows), "last" if fold == "last" else fold)
    except (ValueError, TypeError, RecursionError):
        message = f"The place to go on at is {after[:50]!r}. Expected what the answer before this one named."
        raise ValueError(message) from None


def described() -> Mapping[str, Any]:
    """
    Return the description of the path for OpenAPI.
    """
    series = {
        "name": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "unit": {"enum": ["per second", "value"]},
        "values": {"type": "array", "items": {"type": ["number", "null"]}},
    }
    whole = {
        "start": {"type": "string", "format": "date-time"},
        "step_seconds": {"type": "number"},
        "series": {"type": "array", "items": {"type": "object", "properties": series, "required": sorted(series)}},
        "following": {"type": ["string", "null"]},
    }
    texts = {**_PARAMETERS, **{label: f"Shell pattern of the label {label}." for label in labels()}}
    kinds = {"since": "number", "step": "number", "limit": "integer"}
    return {
        "operationId": "history",
        "summary": "What was in the last two hours: rates and values over time, null where nothing is known?",
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": kinds.get(name, "string")}}
            for name, text in texts.items()
        ],
        "answer": {"type": "object", "properties": whole, "required": sorted(whole)},
    }
