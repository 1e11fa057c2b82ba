"""
``/api/v1/stacks/NODE/PROCESS``: where a process beside this exporter is at this moment, for those who know the operations token.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from celery_obs.areas.tasks.stack_order import ask_audited
from celery_obs.exporter.sharing import BusyError, SharedWork
from celery_obs.recorder.stacks import NoStackError, stack_shown
from celery_obs.state.audit import Audit
from celery_obs.telemetry.redaction import without_secrets

from .answers import Refusal, answer, refuse
from .attempts import described as described_attempts
from .model import Order


__all__ = ["PATH", "STACKS", "StacksApi", "described"]


STACKS: Final = "/api/v1/stacks/"
PATH: Final = f"{STACKS}{{node}}/{{process}}"

EVERY: Final = 1.0
"""
Seconds between two questions to one node.
"""

_MOST_WAITING: Final = 8
_MOST_NODES: Final = 1000
_STATUSES: Final[Mapping[str, int]] = {
    "unknown_node": 404,
    "unknown_process": 404,
    "stacks_off": 409,
    "not_possible": 409,
    "busy": 429,
    "no_answer": 504,
}

log = logging.getLogger("celery_obs.exporter")


class StacksApi:
    """
    Asks processes where they are.

    Args:
        metrics_dir: The folder of all nodes; None where this exporter serves none, and every answer says so.

        order_of: Returns who asks and why; raises the refusal of who may not, or says it wrongly.

        clock: Tells how much time went by.
    """

    def __init__(
        self, metrics_dir: Path | None, *, order_of: Callable[[Request], Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics_dir = metrics_dir
        self._order_of = order_of
        self._clock = clock
        self._asked: dict[str, float] = {}
        self._threads = SharedWork("celery-obs-stacks", threads=1, most=_MOST_WAITING)

    def routes(self) -> list[Route]:
        """
        Make the route.
        """
        return [Route("/api/v1/stacks/{node:channel}/{process:int}", self._ask, methods=["POST"])]

    async def _ask(self, request: Request) -> Response:
        node, number = request.path_params["node"], request.path_params["process"]
        try:
            order: Order = await self._order_of(request)
            directory = self._need()
            self._wait_a_second(node, order, number)
            work = partial(ask_audited, directory, node, number, actor=order.actor or "unknown", reason=order.reason)
            found = await self._threads.run(object(), work)
        except Refusal as refusal:
            return refuse(refusal)
        except NoStackError as error:
            return refuse(Refusal(_STATUSES[error.word], error.word, str(error)))
        except BusyError:
            return refuse(Refusal(503, "busy", "Too many questions wait. Try again in 5 s.", Retry_After="5"))
        except OSError as error:
            return refuse(Refusal(503, "metrics_dir_unavailable", f"The metrics directory cannot be read: {error.strerror or error}."))
        except Exception as error:
            log.error("The question for a stack failed with an unexpected error.", exc_info=without_secrets(error))  # noqa: TRY400 -- shown without secrets.
            return refuse(Refusal(500, "internal", f"This is a bug in celery_obs ({type(error).__name__}); the exporter's log has more."))
        return answer(stack_shown(found))

    def _need(self) -> Path:
        if self._metrics_dir is None:
            message = "This exporter serves no workers. Ask one that runs beside a worker, with --scope worker or all."
            raise Refusal(404, "no_workers", message)
        return self._metrics_dir

    def _wait_a_second(self, node: str, order: Order, number: int) -> None:
        now = self._clock()
        if now - self._asked.get(node, now - EVERY) < EVERY:
            Audit(None).write("stack.show", actor=order.actor, reason=order.reason, outcome="refused: too_often", node=node, process=number)
            message = f"This node was asked less than {EVERY:g} s ago. Try again in a second."
            raise Refusal(429, "too_often", message, Retry_After="1")
        self._asked = {known: at for known, at in self._asked.items() if now - at < EVERY and len(self._asked) < _MOST_NODES}
        self._asked[node] = now


def described() -> Mapping[str, Any]:
    """
    Return what the answer looks like, for OpenAPI.
    """
    attempt = described_attempts()["answer"]["properties"]["attempts"]["items"]
    thread = {
        "type": "object",
        "properties": {
            "thread": {"type": "integer"},
            "frames": {"type": "array", "items": {"type": "string"}},
            "runs_attempt": {"type": "boolean"},
        },
        "required": ["frames", "runs_attempt", "thread"],
    }
    properties = {
        "node": {"type": "string"},
        "process": {"type": "integer"},
        "attempts": {"type": "array", "items": attempt},
        "threads": {"type": "array", "items": thread},
        "complete": {"type": "boolean"},
    }
    return {"type": "object", "properties": properties, "required": sorted(properties)}
