"""
What is switched on, and why the rest is not: metrics, logs, traces, errors.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import time

from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import celery_obs

from celery_obs.settings import Settings
from celery_obs.settings.checks import sentry_dsn
from celery_obs.state.broker import of_app
from celery_obs.state.broker import shown as shown_place

from .redaction import reason, redact_url
from .traces.configuration import ENDPOINTS, NEEDED, plan


__all__ = ["EXTRAS", "Finding", "about", "is_installed", "reaches", "switches"]


_PATIENCE = 3.0
_PORTS = {"http": 80, "https": 443}
_USUAL_ENDPOINT = "http://localhost:4318"

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "exporter": ("starlette", "uvicorn", "prometheus_client", "yaml", "bcrypt"),
    "tracing": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.instrumentation.celery"),
    "sentry": ("sentry_sdk",),
    "oauth": ("authlib", "cryptography", "httpx"),
}
"""
The extras of the package, each with the modules that it brings.
"""

_PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "exporter": ("starlette", "uvicorn", "prometheus-client", "pyyaml", "bcrypt"),
    "tracing": ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation-celery"),
    "sentry": ("sentry-sdk",),
    "oauth": ("authlib", "cryptography", "httpx"),
}
"""
The same by the names of their packages: to ask for a module loads those that it lies in.
"""

_ANNOUNCED_SETTINGS: Final = (
    "task_namespace",
    "task_queue",
    "label_limit",
    "heartbeat_interval",
    "beat_schedule",
    "announce_queues",
    "log_format",
)


class Finding(NamedTuple):
    """
    What a check found.

    Attributes:
        verdict: ``OK``; ``FAIL``, with what to do; ``--`` where there was nothing to check.

        where: The URL that data go to, without secrets; empty where they go to none.

        node: The node that it is about; empty where it is about none.
    """

    verdict: str
    name: str
    text: str
    where: str = ""
    node: str = ""


def switches(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    installed: Callable[[str], bool],
    unreachable: Callable[[str], str],
    others_logging: str = "",
) -> Iterator[Finding]:
    """
    Go through the four observers, each in a line.

    Args:
        settings: Those of the app.

        environ: The environment of the caller; that of the worker should be the same.

        installed: Tells whether a module is there.

        unreachable: Returns why a URL's host does not answer, or nothing.

        others_logging: Whose ``setup_logging`` receiver is in charge, if not ours.
    """
    yield Finding("OK", "metrics", f"on, in {settings.metrics_dir}.") if settings.metrics else _off("metrics")
    yield _logs(settings, others_logging)
    yield _traces(settings, environ, installed, unreachable)
    yield _errors(settings, environ, installed, unreachable)


def about(
    settings: Settings,
    app: Any,
    environ: Mapping[str, str],
    *,
    role: str,
    node: str,
    others_logging: str = "",
    attempts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    Return what a process says of itself at its start, for those who ask later from another shell: no secret is in it, and nothing is asked for it.

    Args:
        settings: Those in force.

        app: The `celery.Celery` app.

        environ: This process's.

        role: ``worker``, ``beat`` or ``publisher``.

        node: Its name.

        others_logging: As for `switches`.

        attempts: How the process hears of its attempts, where it runs tasks.
    """
    found = switches(settings, environ, installed=is_installed, unreachable=lambda _: "", others_logging=others_logging)
    # What only publishes has logs and error reports of its own.
    shown = [each for each in found if role != "publisher" or each.name in {"metrics", "traces"}]
    return {
        "format": 1,
        "role": role,
        "node": node,
        "pid": os.getpid(),
        "since": time.time(),
        "version": celery_obs.__version__,
        "python": platform.python_version(),
        "celery": metadata.version("celery"),
        "app": str(app.main or ""),
        "switches": [{"name": each.name, "verdict": each.verdict, "text": each.text, "where": each.where} for each in shown],
        "attempts": attempts,
        "settings": {name: getattr(settings, name) for name in _ANNOUNCED_SETTINGS},
        "broker": _broker_shown(app),
        "redis": shown_place(settings.redis) if settings.redis else "",
        "extras": [extra for extra, packages in _PACKAGES.items() if all(map(_is_package, packages))],
    }


def _is_package(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _broker_shown(app: Any) -> str:
    try:
        return of_app(app).shown
    except Exception:  # noqa: BLE001 -- its words may quote a password; what connects says what is wrong.
        return "cannot be told"


def is_installed(module: str) -> bool:
    """
    Tell whether a module could be imported.
    """
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def reaches(url: str) -> str:
    """
    Return why there is no answer where *url* points to, or nothing; within three seconds.
    """
    try:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)), timeout=_PATIENCE):
            return ""
    except (OSError, ValueError) as error:
        return reason(error, url)


def _off(name: str) -> Finding:
    return Finding("--", name, f"off, by the setting {name}.")


def _logs(settings: Settings, others: str) -> Finding:
    if not settings.logs:
        return _off("logs")
    if others:
        return Finding(
            "--",
            "logs",
            f"left to {others}, which sets up logging. To add our context there, see docs/how-to/read-the-logs.md.",
        )
    return Finding("OK", "logs", f"on, as {settings.log_format}.")


def _traces(settings: Settings, environ: Mapping[str, str], installed: Callable[[str], bool], unreachable: Callable[[str], str]) -> Finding:
    name = "traces"
    if not settings.traces:
        return _off(name)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Finding("--", name, "off, by OTEL_SDK_DISABLED.")
    variable = next((each for each in ("OTEL_TRACES_EXPORTER", *ENDPOINTS) if environ.get(each, "").strip()), "")
    if not variable:
        return Finding("--", name, f"off. To have them, set the endpoint of your collector: OTEL_EXPORTER_OTLP_ENDPOINT={_USUAL_ENDPOINT}")
    missing = [module for module in NEEDED if not installed(module)]
    if missing:
        return Finding(
            "FAIL", name, f"off: {variable} is set, and {', '.join(missing)} is not installed. Install: pip install 'celery_obs[tracing]'"
        )
    found = plan(environ)
    if found is None or not found.exporters:
        return Finding("--", name, f"off, by {variable}, unless your program sets a tracer provider.")
    if found.advice:
        return Finding("FAIL", name, f"on, but {' '.join(found.advice)}")
    if "otlp" not in found.exporters:
        return Finding("OK", name, f"on, to {', '.join(found.exporters)}.")
    url = next((environ[each].strip() for each in ENDPOINTS if environ.get(each, "").strip()), _USUAL_ENDPOINT)
    return _reached(name, url, redact_url(url), unreachable, "Is the collector running, with OTLP over HTTP?")


def _errors(settings: Settings, environ: Mapping[str, str], installed: Callable[[str], bool], unreachable: Callable[[str], str]) -> Finding:
    name = "errors"
    if not settings.errors:
        return _off(name)
    given = settings.sentry_dsn or environ.get("SENTRY_DSN", "").strip()
    if not given:
        return Finding("--", name, "off, unless your program initialises Sentry. To have them, set SENTRY_DSN, or the setting sentry_dsn.")
    if not installed("sentry_sdk"):
        return Finding("FAIL", name, "off: a DSN is set, and sentry_sdk is not installed. Install: pip install 'celery_obs[sentry]'")
    try:
        sentry_dsn(given)
    except ValueError:
        return Finding("FAIL", name, "off: SENTRY_DSN is not a DSN. Expected the project's DSN as Sentry shows it: https://key@host/42")
    url = str.__str__(given)
    return _reached(
        name, url, f"{redact_url(url)}, {settings.sentry_mode}", unreachable, "Errors that cannot be reported are lost, and counted."
    )


def _reached(name: str, url: str, shown: str, unreachable: Callable[[str], str], advice: str) -> Finding:
    problem = unreachable(url)
    if problem:
        return Finding("FAIL", name, f"on, to {shown}, which does not answer: {problem}. {advice}")
    return Finding("OK", name, f"on, to {shown}.", shown.partition(",")[0])
