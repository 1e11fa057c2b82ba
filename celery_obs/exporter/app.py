"""
What the exporter answers over HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import time

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import celery_obs

from celery_obs.clock import Clock, wall
from celery_obs.recorder.opening import open_metrics_dir
from celery_obs.throttle import LogThrottle
from celery_obs.vocabulary.conditions import Area

from .api.answers import Refusal, refuse
from .api.attempts import AttemptsApi
from .api.history import HistoryApi
from .api.page import POLICY, status_page
from .api.routes import Api, shows_token
from .exposition import OPENMETRICS_TYPE, TEXT_TYPE, Page, accepts_gzip, accepts_openmetrics, compress
from .health import Health, Report
from .hosts import AllowedHosts, is_loopback
from .passwords import RETRY_AFTER, PasswordQueue
from .samples import Samples
from .scrape import BackgroundJob, JobState, Runner
from .sharing import SharedWork
from .web_config import WebConfig


if TYPE_CHECKING:
    from celery_obs.areas.channels.overview import Overview


T = TypeVar("T")

__all__ = ["Check", "create_app", "directory_check"]


SMALLEST_COMPRESSED: Final = 1024
"""
Bytes below which compressing a body is not worth it.
"""

CHECK_DEADLINE: Final = 0.5

OVERVIEW_DEADLINE: Final = 0.5
"""
Seconds that the status page waits for the cluster's state.
"""

MOST_SHOWN: Final = 5
MOST_FINDINGS: Final = 200
"""
What is wrong with one area is told in so many sentences and listed so many times at most.
"""

_LONGEST_HOST: Final = 100

log = logging.getLogger("celery_obs.exporter")


@dataclass(frozen=True, slots=True)
class Check:
    """
    Something without which the exporter is not ready.

    Attributes:
        name: As it is called in ``/health``.

        run: Raises what is wrong; may block.
    """

    name: str
    run: Callable[[], None]


def directory_check(path: Path) -> Check:
    """
    Check that the metrics directory is there and can be read.
    """

    def run() -> None:
        if not path.is_dir():
            message = f"{path} is not a directory. Does a worker run, and does it use the same metrics_dir?"
            raise NotADirectoryError(message)
        if not os.access(path, os.R_OK | os.X_OK):
            message = f"{path} cannot be read by uid {os.geteuid()}"
            raise PermissionError(message)
        os.close(open_metrics_dir(path))

    return Check("metrics_dir", run)


def create_app(
    runner: Runner,
    checks: tuple[Check, ...] = (),
    *,
    web: Callable[[], WebConfig] | None = None,
    api: Api | None = None,
    attempts: AttemptsApi | None = None,
    history: HistoryApi | None = None,
    overview: Callable[[], Overview] | None = None,
    leader: Callable[[], str] = str,
    health: Health | None = None,
    hosts: AllowedHosts | None = None,
    clock: Clock = wall,
) -> Starlette:
    """
    Make the application; it does nothing until it is asked.

    Args:
        runner: Makes the page.

        checks: What readiness depends on, beside a first good collection.

        web: Returns the headers and users that are in force.

        api: Answers about the cluster; by default one that says that there is nothing to ask.

        attempts: Answers which attempts there were; by default one that says that there are none to search.

        history: Answers what was; by default one that says that no history is kept.

        overview: Reads the cluster's state for the status page; None where there is none.

        leader: Names the exporter that serves the cluster's state; empty where none is known.

        health: Tells how workers, queues, tasks and beat are; by default nothing is said of them.

        hosts: What requests may call this host; by default anything.
    """
    watched = health or Health(watches_workers=False, watches_queues=False, clock=clock)
    pages = _Pages(runner, checks, overview=overview, leader=leader, health=watched, clock=clock)
    routes = {
        "/": pages.landing,
        "/metrics": pages.metrics,
        "/health": pages.health,
        "/-/healthy": pages.healthy,
        "/live": pages.healthy,
        "/-/ready": pages.ready,
        "/ready": pages.ready,
        "/startup": pages.ready,
    }
    app = Starlette(
        routes=[
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in routes.items()),
            *(attempts or AttemptsApi(None)).routes(),
            *(history or HistoryApi(None)).routes(),
            *(api or Api(None)).routes(),
        ],
        exception_handlers={HTTPException: _not_so},
        middleware=list(_middleware(web, hosts)),
    )
    app.router.redirect_slashes = False
    return app


def _middleware(web: Callable[[], WebConfig] | None, hosts: AllowedHosts | None) -> Iterator[Middleware]:
    if web is not None:
        yield Middleware(_Headers, web=web)
    if hosts is not None:
        yield Middleware(_HostCheck, hosts=hosts)
    if web is not None:
        yield Middleware(_Guard, web=web)


async def _not_so(request: Request, error: Exception) -> Response:
    """
    Answer what no route takes: in JSON to who uses the API, in a line to everybody else.
    """
    assert isinstance(error, HTTPException)  # noqa: S101 -- it is registered for these.
    if not request.url.path.startswith("/api/"):
        return PlainTextResponse(error.detail, status_code=error.status_code, headers=error.headers)
    allowed = (error.headers or {}).get("Allow", "")
    message = f"Expected {allowed} here." if allowed else "There is nothing at this path. /openapi.json has all that there is."
    refusal = Refusal(error.status_code, "method_not_allowed" if allowed else "not_found", message)
    refusal.headers |= dict(error.headers or {})
    return refuse(refusal)


class _Pages:
    """
    The endpoints, and the threads in which they wait for collectors.
    """

    def __init__(
        self,
        runner: Runner,
        checks: tuple[Check, ...],
        *,
        overview: Callable[[], Overview] | None,
        leader: Callable[[], str],
        health: Health,
        clock: Clock,
    ) -> None:
        self._runner = runner
        self._watched = health
        self._overview = None if overview is None else _Overviews(overview)
        self._leader = leader
        self._clock = clock
        self._started_at = clock()
        self._has_run = False
        # Apart from the others: whatever those wait for, the scraper gets its page.
        # Collectors share their reads; the page itself is made for each, for who leads is asked as late as can be.
        self._scrapes = ThreadPoolExecutor(max_workers=16, thread_name_prefix="celery-obs-scrape")
        self._others = SharedWork("celery-obs-page", threads=3, most=3)
        self._checks = {check.name: BackgroundJob(f"check-{check.name}", check.run, on_error=lambda _: None) for check in checks}

    async def metrics(self, request: Request) -> Response:
        openmetrics = accepts_openmetrics(request.headers.get("accept", ""))
        zipped = accepts_gzip(request.headers.get("accept-encoding", ""))
        work = partial(self._body, openmetrics=openmetrics, zipped=zipped)
        body, encoding = await asyncio.get_running_loop().run_in_executor(self._scrapes, work)
        headers = {"Content-Type": OPENMETRICS_TYPE if openmetrics else TEXT_TYPE, "Vary": "Accept, Accept-Encoding"}
        return Response(body, headers=headers | encoding)

    async def healthy(self, request: Request) -> Response:
        return PlainTextResponse("OK\n")

    async def ready(self, request: Request) -> Response:
        wrong = await self._others.run("ready", self._not_ready)
        if not wrong:
            return PlainTextResponse("Ready\n")
        return PlainTextResponse("".join(f"Not ready: {reason}\n" for reason in wrong), status_code=503)

    async def health(self, request: Request) -> Response:
        document, code = await self._others.run("health", self._health)
        return JSONResponse(document, status_code=code, headers={"Cache-Control": "no-store"})

    async def landing(self, request: Request) -> Response:
        page = await self._others.run("landing", self._landing)
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})

    def _body(self, *, openmetrics: bool, zipped: bool) -> tuple[bytes, dict[str, str]]:
        text = self._runner.scrape(openmetrics=openmetrics)
        self._watched.note([text])
        body = text.encode(errors="replace")  # Half of a surrogate pair, wherever it came from, is no reason to show nothing.
        if zipped and len(body) >= SMALLEST_COMPRESSED:
            return compress(body), {"Content-Encoding": "gzip"}
        return body, {}

    def _not_ready(self) -> list[str]:
        wrong = [f"{name}: {error}" for name, (_, error) in self._run_checks().items() if error]
        if not self._has_run:
            states = self._runner.states()
            self._has_run = self._runner.has_run(states)
            if not self._has_run:
                wrong += [f"{name}: {state.error}" for name, state in states.items() if not state.ok]
        return wrong

    def _landing(self) -> str:
        states, pages = self._runner.looked_at()
        read = None if self._overview is None else self._overview.read
        report = self._watched.report(pages, failed=_failed(states))
        return status_page(read, leader=self._leader(), report=report, samples=Samples(pages))

    def _health(self) -> tuple[dict[str, object], int]:
        begin = time.monotonic()
        checks = self._run_checks()
        states, pages = self._runner.looked_at()
        self._has_run = self._has_run or self._runner.has_run(states)
        asked_at = time.monotonic()
        report = self._watched.report(pages, failed=_failed(states))
        took = time.monotonic() - asked_at
        shown: dict[str, dict[str, object]] = {area: _shown_area(report, area, took) for area in report.areas}
        shown |= {name: _shown(took, error) for name, (took, error) in checks.items()}
        shown |= {f"collector:{name}": _shown(state.duration, state.error) for name, state in states.items()}
        statuses = {report.status(area) for area in report.areas}
        if any(error for _, error in checks.values()) or not self._has_run:
            statuses.add("unhealthy")
        if any(not state.ok for state in states.values()):
            statuses.add("degraded")
        status = next((word for word in ("unhealthy", "degraded", "unknown") if word in statuses), "healthy")
        now = self._clock()
        document = {
            "status": status,
            "timestamp": datetime.fromtimestamp(now, timezone.utc).isoformat(),
            "version": celery_obs.__version__,
            "uptime_seconds": round(max(0.0, now - self._started_at), 3),
            "response_time_ms": round((time.monotonic() - begin) * 1000, 3),
            "checks": shown,
        }
        return document, 503 if status == "unhealthy" else 200

    def _run_checks(self) -> Mapping[str, tuple[float, str]]:
        until = time.monotonic() + CHECK_DEADLINE
        tickets = {name: job.ask() for name, job in self._checks.items()}
        states = {name: self._checks[name].wait(ticket, until=until) for name, ticket in tickets.items()}
        return {name: (state.duration, "" if state.ok else state.error) for name, state in states.items()}


def _failed(states: Mapping[str, JobState[Page]]) -> Mapping[str, str]:
    return {name: state.error for name, state in states.items() if not state.ok}


def _shown_area(report: Report, area: Area, took: float) -> dict[str, object]:
    """
    Show an area as the other checks are shown, and what was found in it.
    """
    found = [trouble for trouble in report.troubles if trouble.condition.area == area]
    texts = [trouble.text for trouble in found[:MOST_SHOWN]]
    if len(found) > MOST_SHOWN:
        texts.append(f"{len(found) - MOST_SHOWN} more of the kind.")
    error = " ".join(texts) or report.unknown.get(area)
    findings = [
        {
            "alert": trouble.condition.alert,
            "severity": trouble.condition.severity,
            "labels": dict(trouble.labels),
            "value": round(trouble.value, 3),
            "text": trouble.text,
            "advice": trouble.advice,
        }
        for trouble in found[:MOST_FINDINGS]
    ]
    return {"status": report.status(area), "response_time_ms": round(took * 1000, 3), "error": error, "findings": findings}


def _shown(took: float, error: str) -> dict[str, object]:
    return {"status": "unhealthy" if error else "healthy", "response_time_ms": round(took * 1000, 3), "error": error or None}


class _Overviews:
    """
    The cluster's state for a page, which does not wait for a Redis that is slow.
    """

    def __init__(self, read: Callable[[], Overview]) -> None:
        self._job: BackgroundJob[Overview] = BackgroundJob("overview", read, on_error=self._note)
        self._error: Exception | None = None

    def read(self) -> Overview:
        """
        Return the state of now; raise what reading it raised, or that it takes too long.
        """
        until = time.monotonic() + OVERVIEW_DEADLINE
        state = self._job.wait(self._job.ask(), until=until)
        if state.ok and state.value is not None:
            return state.value
        if self._error is None or time.monotonic() >= until:
            raise TimeoutError(state.error)
        raise self._error

    def _note(self, error: Exception) -> None:
        self._error = error


class _Headers:
    """
    Adds the web configuration's headers to every answer.
    """

    def __init__(self, app: ASGIApp, *, web: Callable[[], WebConfig]) -> None:
        self._app = app
        self._web = web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self._web().headers

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _HostCheck:
    """
    Refuses requests for a host that is not allowed.
    """

    def __init__(self, app: ASGIApp, *, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts
        self._throttle = LogThrottle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host")
        if self._hosts.allow(host):
            await self._app(scope, receive, send)
            return
        shown = (host or "")[:_LONGEST_HOST]
        message = (
            f"This exporter does not answer to the host {shown!r}. Ask for localhost or 127.0.0.1, "
            "or have the exporter started with --web.allowed-hosts (CELERY_OBS_WEB_ALLOWED_HOSTS) and that name."
        )
        if self._throttle.allows("host"):
            log.warning("A request was refused. %s", message)
        is_api = scope["path"].startswith("/api/")
        answer = refuse(Refusal(421, "wrong_host", message)) if is_api else PlainTextResponse(f"{message}\n", status_code=421)
        await answer(scope, receive, send)


class _Guard:
    """
    Asks for user and password where the web configuration names users.

    An operation that brings a token is let through to who checks tokens: a request has one Authorization header.
    """

    def __init__(self, app: ASGIApp, *, web: Callable[[], WebConfig]) -> None:
        self._app = app
        self._web = web
        self._passwords = PasswordQueue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        users = self._web().users
        authorization = Headers(scope=scope).get("authorization", "")
        refusal = None
        if users and not shows_token(scope["method"], scope["path"], authorization):
            refusal = await self._refusal(authorization, users, is_local=is_loopback((scope.get("client") or ("",))[0]))
        await (self._app if refusal is None else refusal)(scope, receive, send)

    async def _refusal(self, authorization: str, users: Mapping[str, bytes], *, is_local: bool) -> Response | None:
        """
        Return what to answer to who may not enter.
        """
        user, password = _credentials(authorization)
        verdict = "wrong" if user is None else await self._passwords.check(user, password, users, is_local=is_local)
        if verdict == "right":
            return None
        if verdict == "busy":
            message = f"Too many passwords wait to be checked. Try again in {RETRY_AFTER} s.\n"
            return PlainTextResponse(message, status_code=429, headers={"Retry-After": str(RETRY_AFTER)})
        headers = {"WWW-Authenticate": 'Basic realm="celery_obs", charset="UTF-8"'}
        return PlainTextResponse("Unauthorized\n", status_code=401, headers=headers)


def _credentials(authorization: str) -> tuple[str | None, bytes]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None, b""
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else (None, b"")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None, b""
