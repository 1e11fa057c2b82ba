"""
``celery-obs doctor``: one line per check, OK or what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from celery_obs.exceptions import ConfigurationError
from celery_obs.metrics.format import SHORTAGE, node_name
from celery_obs.metrics_dir import prepare_metrics_dir
from celery_obs.settings import load
from celery_obs.state.broker import Broker, mask, of_app, of_url, reach, reason_of
from celery_obs.state.connection import connect

from .probe import Unreadable, heartbeats
from .switches import Finding, is_installed, reaches, switches


__all__ = ["Finding", "Surroundings", "doctor", "examine"]


_PATIENCE = 3.0
_TOLERATED_SKEW = 1.0
_STALE = 30.0
_EXTRAS = {
    "exporter": ("starlette", "uvicorn", "yaml", "bcrypt"),
    "tracing": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.instrumentation.celery"),
    "sentry": ("sentry_sdk",),
    "oauth": ("authlib", "cryptography", "httpx"),
}


class Surroundings(NamedTuple):
    """
    What is to be checked.
    """

    metrics_dir: Path
    redis: str | Broker | None
    broker: Broker | None
    wrong_broker: str = ""


def examine(
    surroundings: Surroundings, *, clock: Callable[[], float] = time.time, installed: Callable[[str], bool] | None = None
) -> Iterator[Finding]:
    """
    Make all checks, one after the other; each answers within a few seconds.
    """
    yield _metrics_dir(surroundings.metrics_dir)
    yield _broker(surroundings.broker, surroundings.wrong_broker)
    yield from _redis(surroundings.redis, clock)
    yield from _nodes(surroundings.metrics_dir, clock)
    yield from _shortages(surroundings.metrics_dir)
    yield from _extras(installed or is_installed)


def _metrics_dir(path: Path) -> Finding:
    try:
        prepare_metrics_dir(path)
    except ConfigurationError as error:
        return Finding("FAIL", "metrics directory", str(error))
    return Finding("OK", "metrics directory", f"{path}, owned by uid {path.stat().st_uid}, is writable by uid {os.geteuid()}.")


def _broker(broker: Broker | None, wrong: str) -> Finding:
    name = "broker"
    if wrong:
        return Finding("FAIL", name, wrong)
    if broker is None:
        return Finding("--", name, "not checked. Give --broker-url, or run celery -A proj obs doctor.")
    problem = reach(broker, within=_PATIENCE)
    if problem:
        return Finding("FAIL", name, f"cannot connect to {broker.shown}: {problem}. Is it running, and are host, port and password right?")
    return Finding("OK", name, f"{broker.shown} answers.")


def _redis(redis: str | Broker | None, clock: Callable[[], float]) -> Iterator[Finding]:
    if not redis:
        yield Finding("--", "redis", "none given, so cluster features are off. Give --redis-url to have them.")
        return
    shown = mask(redis) if isinstance(redis, str) else redis.shown
    try:
        with contextlib.closing(connect(redis, patience=_PATIENCE)) as client:
            before = clock()
            seconds, microseconds = _time_of(client)
            after = clock()
    except Exception as error:  # noqa: BLE001 -- a bad URL is a ConfigurationError, a dead server is Redis's own.
        problem = str(error) if isinstance(error, ConfigurationError) else reason_of(error)
        yield Finding("FAIL", "redis", f"cannot use {shown}: {problem}. Is it running, and are host, port and password right?")
        return
    yield Finding("OK", "redis", f"{shown} answers in {(after - before) * 1000:.1f} ms.")
    skew = seconds + microseconds / 1e6 - (before + after) / 2
    if abs(skew) > _TOLERATED_SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        advice = "Waiting times will be wrong by that much; synchronise the clocks (chrony or systemd-timesyncd)."
        yield Finding("FAIL", "clock", f"Redis is {abs(skew):.1f} s {direction} this machine. {advice}")
        return
    yield Finding("OK", "clock", f"differs from that of Redis by {abs(skew):.3f} s.")


def _time_of(client: Any) -> tuple[int, int]:
    # Any: redis-py says that TIME may be awaitable, which it is not in this client.
    seconds, microseconds = client.time()
    return int(seconds), int(microseconds)


def _nodes(metrics_dir: Path, clock: Callable[[], float]) -> Iterator[Finding]:
    try:
        beats = heartbeats(str(metrics_dir))
    except Unreadable as problem:
        yield Finding("--", "nodes", str(problem))
        return
    for beat in beats:
        age = clock() - beat.touched_at
        version = beat.facts.get("version")
        runs = f", celery_obs {version}" if version else ""
        facts = f"pid {beat.pid}{runs}, heartbeat {max(age, 0.0):.1f} s ago"
        name = f"{beat.role} {beat.node}"
        if age > _STALE:
            advice = f"If it was taken away for good: celery-obs forget-node {beat.node}; otherwise look at its log."
            yield Finding("FAIL", name, f"{facts}, which is too long. {advice}")
        elif not beat.ready:
            yield Finding("FAIL", name, f"{facts}, not ready. Can it reach its broker?")
        else:
            yield Finding("OK", name, f"{facts}.")
    if not any(beat.role == "beat" for beat in beats):
        yield Finding("--", "beat", "no heartbeat of a beat here. Fine where beat runs elsewhere, or inside a worker (-B).")


def _shortages(metrics_dir: Path) -> Iterator[Finding]:
    """
    Tell which nodes ran out of room for new series, and what would have been enough.
    """
    for path in sorted(metrics_dir.glob(f"*/{SHORTAGE}")):
        node = node_name(path.parent.name)
        try:
            lack = json.loads(path.read_text())
            setting, given, needed = str(lack["setting"]), int(lack["given"]), int(lack["needed"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if node is not None:
            text = f"{setting} is {given}, and at least {needed} are needed; newer series are not recorded. Set {setting} to {2 * needed}."
            yield Finding("FAIL", f"room of {node}", text)


def _extras(installed: Callable[[str], bool]) -> Iterator[Finding]:
    for extra, modules in _EXTRAS.items():
        missing = [module for module in modules if not installed(module)]
        if missing:
            text = f"not installed ({', '.join(missing)}). To have it: pip install 'celery_obs[{extra}]'"
            yield Finding("--", f"extra {extra}", text)
        else:
            yield Finding("OK", f"extra {extra}", "installed.")


def _broker_of(app: Any, url: str | None) -> tuple[Broker | None, str]:
    """
    Return the broker that was given or that *app* uses, and what is wrong with its configuration.
    """
    try:
        return (of_url(url) if url else of_app(app) if app is not None else None), ""
    except ConfigurationError as error:
        return None, str(error)


@click.command()
@click.option(
    "--metrics-dir", envvar="CELERY_OBS_METRICS_DIR", help="Directory of the metric files.  [default: the app's, or your user's own]"
)
@click.option("--redis-url", envvar="CELERY_OBS_REDIS_URL", help="Redis of the cluster's state.  [default: the app's, or the broker]")
@click.option("--broker-url", envvar="CELERY_OBS_BROKER_URL", help="The broker.  [default: the app's]")
@click.pass_context
def doctor(ctx: click.Context, metrics_dir: str | None, redis_url: str | None, broker_url: str | None) -> None:
    """
    Check the surroundings: one line per check, OK or what to do.

    As "celery -A proj obs doctor" it takes the URLs from the app.
    """
    from celery_obs.logs.configure import other_receivers  # noqa: PLC0415 -- loads structlog.

    app = getattr(ctx.obj, "app", None)
    given = {"metrics_dir": metrics_dir, "redis_url": redis_url}
    settings = load(app.conf if app is not None else {}, os.environ, {name: value for name, value in given.items() if value})
    broker, wrong = _broker_of(app, broker_url)
    redis: str | Broker | None = settings.redis_url or (broker if broker is not None and broker.is_redis else None)
    healthy = True
    others = ", ".join(other_receivers()) if app is not None else ""
    observers = switches(settings, os.environ, installed=is_installed, unreachable=reaches, others_logging=others)
    for finding in (*examine(Surroundings(settings.metrics_dir, redis, broker, wrong)), *observers):
        click.echo(f"{finding.verdict:<4} {finding.name}: {finding.text}")
        healthy = healthy and finding.verdict != "FAIL"
    ctx.exit(0 if healthy else 1)
