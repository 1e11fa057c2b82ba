"""
What the operators' commands share: how they find Redis, who is at the keyboard, and what becomes of mistakes.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import logging
import os

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celery_obs.exceptions import ConfigurationError


if TYPE_CHECKING:
    from redis import Redis

    from celery_obs.state.broker import Broker


__all__ = [
    "connected",
    "deed",
    "find_redis",
    "json_option",
    "metrics_dir_of",
    "metrics_dir_option",
    "print_json",
    "redis_option",
    "reports",
    "run",
    "say_audit",
    "seconds_of",
]


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

redis_option = click.option(
    "--redis-url", envvar="CELERY_OBS_REDIS_URL", help="Redis of the cluster's state.  [default: the app's, or the broker]"
)
"""
Where the state is.
"""

metrics_dir_option = click.option(
    "--metrics-dir", envvar="CELERY_OBS_METRICS_DIR", help="Directory of the metric files.  [default: the app's, or your user's own]"
)
"""
Where the files are.
"""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, as the exporter's API does.")


def deed(command: Callable[..., None]) -> Callable[..., None]:
    """
    Give a command the options of those that change something.
    """
    options = (
        redis_option,
        click.option("--reason", default="", help="Reason, for the audit log."),
        click.option("--actor", envvar="CELERY_OBS_ACTOR", help="User, for the audit log.  [default: you@this-host]"),
        click.option("--new", is_flag=True, help="Accept a channel that was never used."),
    )
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def run(
    ctx: click.Context,
    action: str,
    channel: str,
    *,
    redis_url: str | None,
    reason: str,
    actor: str | None,
    new: bool,
    seconds: float | None = None,
) -> Mapping[str, object]:
    """
    Do *action* to *channel*, with its line in the audit, and return what there is to tell.

    Raises:
        ConfigurationError: for an unknown channel.
    """
    from celery_obs.areas.channels.operations import Order, perform  # noqa: PLC0415
    from celery_obs.areas.channels.reports import Reports  # noqa: PLC0415
    from celery_obs.state.audit import current_user  # noqa: PLC0415 -- help is quick.

    say_audit()
    with connected(ctx, redis_url) as redis:
        if not new:
            _refuse_unknown(channel, Reports(redis).channels())
        return perform(redis, action, channel, Order(actor or current_user(), reason, seconds))


@contextlib.contextmanager
def reports(ctx: click.Context, redis_url: str | None) -> Iterator[Any]:
    """
    Lend what answers questions about the cluster.
    """
    from celery_obs.areas.channels.reports import Reports  # noqa: PLC0415

    with connected(ctx, redis_url) as redis:
        yield Reports(redis)


@contextlib.contextmanager
def connected(ctx: click.Context, given: str | None) -> Iterator[Redis]:
    """
    Lend a client of the cluster's Redis.

    Raises:
        ConfigurationError: where there is none, or it does not do what it is asked.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415

    from celery_obs.state.broker import reason_of, shown  # noqa: PLC0415
    from celery_obs.state.connection import connect  # noqa: PLC0415

    redis = find_redis(ctx, given)
    try:
        with contextlib.closing(connect(redis)) as client:
            yield client
    except (RedisError, OSError) as error:
        message = f"Redis at {shown(redis)} failed: {reason_of(error, redis)}. Is it running, and are host, port and password right?"
        raise ConfigurationError(message) from None


def find_redis(ctx: click.Context, given: str | None) -> str | Broker:
    """
    Return where the cluster's Redis is: what the option says, the app's setting, or its broker.

    Raises:
        ConfigurationError: where there is none.
    """
    from celery_obs.settings import load  # noqa: PLC0415
    from celery_obs.state.broker import is_redis  # noqa: PLC0415
    from celery_obs.state.connection import shared_by  # noqa: PLC0415

    app = getattr(ctx.obj, "app", None)
    redis: str | Broker | None = given or load(app.conf if app is not None else {}, os.environ, {}).redis_url
    if redis is None and app is not None:
        redis = shared_by(app)
    elif redis is None:
        redis = next(filter(is_redis, os.environ.get("CELERY_OBS_BROKER_URL", "").split()), None)
    if redis:
        return redis
    message = "No Redis is given. Expected --redis-url, CELERY_OBS_REDIS_URL, or celery -A proj obs … of an app whose broker is Redis."
    raise ConfigurationError(message)


def metrics_dir_of(ctx: click.Context, given: str | None) -> Path:
    """
    Return the metrics directory: what the option says, the app's setting, or the user's own.
    """
    from celery_obs.settings import load  # noqa: PLC0415 -- help is quick.

    app = getattr(ctx.obj, "app", None)
    return load(app.conf if app is not None else {}, os.environ, {"metrics_dir": given} if given else {}).metrics_dir


def seconds_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """
    Read a time such as ``90``, ``30m`` or ``7d``.
    """
    if value is None:
        return None
    number, unit = (value[:-1], value[-1:].lower()) if value[-1:].lower() in _UNITS else (value, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = -1.0
    if 0 < seconds <= 366 * _UNITS["d"]:
        return seconds
    message = f"invalid duration {value!r}. Expected something like 90, 30m, 12h or 7d, up to 366d."
    raise click.BadParameter(message)


def print_json(content: object) -> None:
    """
    Print *content* for programs.
    """
    click.echo(json.dumps(content, indent=2))


def _refuse_unknown(channel: str, known: tuple[str, ...]) -> None:
    if channel in known:
        return
    near = difflib.get_close_matches(channel, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    shown = ", ".join(name[:50] for name in known[:20]) or "none so far"
    message = f"There is no channel {channel[:100]!r}.{hint} Known are: {shown}. Use --new for one that was never used."
    raise ConfigurationError(message)


def say_audit() -> None:
    """
    Let the audit's line come out on standard error.
    """
    log = logging.getLogger("celery_obs.audit")
    log.setLevel(logging.INFO)
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("audit: %(message)s"))
        log.addHandler(handler)
