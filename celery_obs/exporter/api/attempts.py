"""
``/api/v1/attempts``: the latest attempts of the nodes beside this exporter.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_obs.clock import Clock, wall
from celery_obs.exporter.sharing import BusyError, SharedWork
from celery_obs.recorder.attempt_log import AttemptLog, Found, Wanted, shown
from celery_obs.telemetry.redaction import without_secrets

from .answers import Refusal, answer, refuse


__all__ = ["PATH", "AttemptsApi", "described"]


PATH: Final = "/api/v1/attempts"

MOST: Final = 1000
"""
Attempts in one answer at most.
"""

PATIENCE: Final = 5.0
"""
Seconds after which a search answers with what it has found.
"""

log = logging.getLogger("celery_obs.exporter")

_MOST_WAITING: Final = 8
_LONGEST: Final = 500
_PARAMETERS: Final[Mapping[str, str]] = {
    "task": "Shell pattern of the task's name, such as emails.*",
    "queue": "Shell pattern of the queue's name.",
    "node": "Shell pattern of the node's name.",
    "state": "States, with commas between them: running, or as in celery_task_finished_total.",
    "exception": "Shell pattern of the exception's class.",
    "id": "The task's id: all its attempts.",
    "since": "Ended at this time or later: seconds since the epoch, or seconds ago where negative.",
    "until": "Ended at this time or earlier; as since.",
    "slower_than": "Seconds that the runtime is above.",
    "limit": f"Maximum number of attempts, from 1 to {MOST}.",
    "after": "The value of following in the answer before this one.",
}


class AttemptsApi:
    """
    Answers which attempts there were.

    Args:
        metrics_dir: The folder of all nodes; None where this exporter serves none, and every answer says so.

        clock: Tells the time.
    """

    def __init__(self, metrics_dir: Path | None, *, clock: Clock = wall) -> None:
        self._log = None if metrics_dir is None else AttemptLog(metrics_dir, clock=clock)
        self._clock = clock
        self._searches = SharedWork("celery-obs-attempts", threads=1, most=_MOST_WAITING)

    def routes(self) -> list[Route]:
        """
        Make the route.
        """
        return [Route(PATH, self._search, methods=["GET"])]

    async def _search(self, request: Request) -> Response:
        try:
            wanted = self._wanted(request.query_params)
            found = await self._searches.run(wanted, lambda: self._need().search(wanted, patience=PATIENCE))
        except Refusal as refusal:
            return refuse(refusal)
        except ValueError as error:
            return refuse(Refusal(400, "bad_parameter", str(error)))
        except BusyError:
            return refuse(Refusal(503, "busy", "Too many searches wait. Try again in 5 s.", Retry_After="5"))
        except OSError as error:
            return refuse(Refusal(503, "metrics_dir_unavailable", f"The metrics directory cannot be read: {error.strerror or error}."))
        except Exception as error:
            log.error("The search for attempts failed with an unexpected error.", exc_info=without_secrets(error))  # noqa: TRY400 -- shown without secrets.
            return refuse(Refusal(500, "internal", f"This is a bug in celery_obs ({type(error).__name__}); the exporter's log has more."))
        return answer(_told(found))

    def _need(self) -> AttemptLog:
        if self._log is None:
            message = "This exporter serves no workers. Ask one that runs beside a worker, with --scope worker or all."
            raise Refusal(404, "no_workers", message)
        return self._log

    def _wanted(self, given: Mapping[str, str]) -> Wanted:
        for name, value in given.items():
            if name not in _PARAMETERS:
                message = f"There is no parameter {name[:50]!r}. Expected some of {', '.join(_PARAMETERS)}."
                raise ValueError(message)
            if len(value) > _LONGEST:
                message = f"{name} has {len(value)} characters. Expected at most {_LONGEST}."
                raise ValueError(message)
        now = self._clock()
        limit = int(_number(given, "limit", default=100.0, whole=True))
        if not 1 <= limit <= MOST:
            message = f"The limit is {limit}. Expected a whole number from 1 to {MOST}."
            raise ValueError(message)
        states = tuple(state.strip() for state in given.get("state", "").split(",") if state.strip())
        return Wanted(
            id=given.get("id", ""),
            task=given.get("task", ""),
            queue=given.get("queue", ""),
            node=given.get("node", ""),
            state=states,
            exception=given.get("exception", ""),
            since=_time(given, "since", now, default=0.0),
            until=_time(given, "until", now, default=float("inf")),
            slower_than=_number(given, "slower_than", default=-1.0),
            limit=limit,
            after=given.get("after", ""),
        )


def _time(given: Mapping[str, str], name: str, now: float, *, default: float) -> float:
    number = _number(given, name, default=default)
    return now + number if number < 0 else number


def _number(given: Mapping[str, str], name: str, *, default: float, whole: bool = False) -> float:
    text = given.get(name)
    if text is None:
        return default
    read: Callable[[str], float] = int if whole else float
    try:
        number = read(text)
    except ValueError:
        number = float("nan")
    if abs(number) < 1e12:  # noqa: PLR2004 -- more than any time, and less than infinity.
        return number
    message = f"{name} is {text[:50]!r}. Expected {'a whole number' if whole else 'a number of seconds'}."
    raise ValueError(message)


def _told(found: Found) -> Mapping[str, object]:
    return {
        "attempts": [shown(attempt) for attempt in found.attempts],
        "following": found.following or None,
        "kept": found.kept,
        "overwritten": found.overwritten,
        "complete": found.is_complete,
    }


def described() -> Mapping[str, Any]:
    """
    Return the description of the path for OpenAPI.
    """
    nullable = {"type": ["string", "null"]}
    time = {"type": ["string", "null"], "format": "date-time"}
    number = {"type": "number"}
    properties: dict[str, Any] = {
        **{name: {"type": "string"} for name in ("id", "task", "queue", "state", "node")},
        **dict.fromkeys(("exception", "trace_id"), nullable),
        **dict.fromkeys(("due_at", "started_at", "ended_at"), time),
        **{name: {"type": "integer"} for name in ("retries", "process")},
        "exhausted": {"type": "boolean"},
        "wait_seconds": {"type": ["number", "null"]},
        "runtime_seconds": number,
    }
    attempt = {"type": "object", "properties": properties, "required": sorted(properties)}
    whole = {
        "attempts": {"type": "array", "items": attempt},
        "following": nullable,
        "kept": {"type": "integer"},
        "overwritten": {"type": "integer"},
        "complete": {"type": "boolean"},
    }
    numbers = {"since", "until", "slower_than"}
    return {
        "operationId": "attempts",
        "summary": "Which attempts ran lately, the newest first, and which are running?",
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": text,
                "schema": {"type": "integer" if name == "limit" else "number" if name in numbers else "string"},
            }
            for name, text in _PARAMETERS.items()
        ],
        "answer": {"type": "object", "properties": whole, "required": sorted(whole)},
    }
