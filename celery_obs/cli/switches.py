"""
What is switched on, and why the rest is not: metrics, logs, traces, errors.
"""

from __future__ import annotations

import importlib.util
import socket

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from celery_obs.settings import Settings, mask
from celery_obs.settings.checks import sentry_dsn
from celery_obs.traces.configuration import ENDPOINTS, NEEDED, plan


__all__ = ["Finding", "is_installed", "reaches", "switches"]


_PATIENCE = 3.0
_PORTS = {"http": 80, "https": 443}
_USUAL_ENDPOINT = "http://localhost:4318"


class Finding(NamedTuple):
    """
    What a check found.

    Attributes:
        verdict: ``OK``; ``FAIL``, with what to do; ``--`` where there was nothing to check.
    """

    verdict: str
    name: str
    text: str


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

        environ: The environment of whoever asks; that of the worker should be the same.

        installed: Tells whether a module is there.

        unreachable: Returns why a URL's host does not answer, or nothing.

        others_logging: Whose ``setup_logging`` receiver is in charge, if not ours.
    """
    yield Finding("OK", "metrics", f"on, in {settings.metrics_dir}.") if settings.metrics else _off("metrics")
    yield _logs(settings, others_logging)
    yield _traces(settings, environ, installed, unreachable)
    yield _errors(settings, environ, installed, unreachable)


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
    Return why nobody answers where *url* points to, or nothing; within three seconds.
    """
    try:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)), timeout=_PATIENCE):
            return ""
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def _off(name: str) -> Finding:
    return Finding("--", name, f"off, by the setting {name}.")


def _logs(settings: Settings, others: str) -> Finding:
    if not settings.logs:
        return _off("logs")
    if others:
        return Finding(
            "--",
            "logs",
            f"left to {others}, which sets up logging. celery_obs.logs has processors to add; see the page on reading the logs.",
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
        return Finding("--", name, f"off. To have them, say where spans go: OTEL_EXPORTER_OTLP_ENDPOINT={_USUAL_ENDPOINT}")
    missing = [module for module in NEEDED if not installed(module)]
    if missing:
        return Finding(
            "FAIL", name, f"off, for {variable} is set and {', '.join(missing)} not installed: pip install 'celery_obs[tracing]'"
        )
    found = plan(environ)
    if found is None or not found.exporters:
        return Finding("--", name, f"off, by {variable}, but for a provider that your program makes.")
    if found.advice:
        return Finding("FAIL", name, f"on, but {' '.join(found.advice)}")
    if "otlp" not in found.exporters:
        return Finding("OK", name, f"on, to {', '.join(found.exporters)}.")
    url = next((environ[each].strip() for each in ENDPOINTS if environ.get(each, "").strip()), _USUAL_ENDPOINT)
    return _reached(name, url, mask(url), unreachable, "Is the collector running, with OTLP over HTTP?")


def _errors(settings: Settings, environ: Mapping[str, str], installed: Callable[[str], bool], unreachable: Callable[[str], str]) -> Finding:
    name = "errors"
    if not settings.errors:
        return _off(name)
    given = settings.sentry_dsn or environ.get("SENTRY_DSN", "").strip()
    if not given:
        return Finding(
            "--", name, "off, but for a client that your program makes. To have them, set SENTRY_DSN, or the setting sentry_dsn."
        )
    if not installed("sentry_sdk"):
        return Finding("FAIL", name, "off, for there is a DSN, and sentry_sdk is not installed: pip install 'celery_obs[sentry]'")
    try:
        sentry_dsn(given)
    except ValueError:
        return Finding("FAIL", name, "off, for SENTRY_DSN is none. Expected what Sentry shows as the project's DSN: https://key@host/42")
    url = str.__str__(given)
    shown = f"{urlsplit(url).scheme}://***@{url.rpartition('@')[2]}"
    return _reached(name, url, f"{shown}, {settings.sentry_mode}", unreachable, "What is not reported is lost, and counted.")


def _reached(name: str, url: str, shown: str, unreachable: Callable[[str], str], advice: str) -> Finding:
    problem = unreachable(url)
    if problem:
        return Finding("FAIL", name, f"on, to {shown}, which does not answer: {problem}. {advice}")
    return Finding("OK", name, f"on, to {shown}.")
