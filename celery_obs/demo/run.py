"""
The demo's course: bring everything up, show it, take everything down.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from celery_obs.exceptions import ConfigurationError

from . import providers
from .accounts import CHANNELS, HORIZON, PROVIDER, RECEIVER_PORT, WEBHOOK_SECRET
from .processes import ChildFailedError, Household, free_port, wait_until
from .redis_server import find_redis_server
from .summary import Sample, fitted, has_sync_metrics, has_task_metrics, joined, read, sections


__all__ = ["Plan", "answers", "plan", "run", "show"]


_PATIENCE = 30.0
_TOKEN_LIFETIME = 30.0
_TOKEN = "CELERY_OBS_OPERATIONS_TOKEN"  # noqa: S105 -- the name of a variable.
_REFRESH_ON_TTY = 1.0
_REFRESH_IN_LOG = 5.0
_USUAL_SIZE = os.terminal_size((80, 24))


class Plan(NamedTuple):
    """
    What to start.

    Attributes:
        first: The server that all others need, by name and command.

        others: What follows once it listens, by name, in order.

        server_port: Where the first one listens.

        url: Where to scrape.

        environ: The environment of all.
    """

    first: tuple[str, Sequence[str]]
    others: Mapping[str, Sequence[str]]
    server_port: int
    url: str
    environ: Mapping[str, str]


def plan(directory: Path, *, port: int | None, environ: Mapping[str, str], with_providers: bool = False) -> Plan:
    """
    Decide on programs, ports and environment.

    Args:
        directory: For logs and metric files.

        port: The exporter's; None for any free one.

        environ: Of the person.

        with_providers: Whether to play the token endpoints of real providers, too.

    Raises:
        ConfigurationError: where there is no Redis server, or the port is taken.
    """
    server = find_redis_server()
    listen = _checked_port(port) if port else free_port()
    redis_port = free_port()
    redis_url = f"redis://127.0.0.1:{redis_port}/0"
    metrics_dir = directory / "metrics"
    metrics_dir.mkdir(exist_ok=True)
    provider_port, receiver_port = free_port(), free_port()
    zoo_port = free_port() if with_providers else None
    celery = [sys.executable, "-m", "celery", "-A", "celery_obs.demo.app"]
    worker = [*celery, "worker", "--pool", "prefork"]
    exporter = [sys.executable, "-m", "celery_obs.cli", "exporter", "--web.listen-address", f"127.0.0.1:{listen}"]
    ours = {
        "CELERY_BROKER_URL": redis_url,
        "CELERY_OBS_METRICS_DIR": str(metrics_dir),
        "CELERY_OBS_REDIS_URL": redis_url,
        "PYTHONUNBUFFERED": "1",
        _TOKEN: secrets.token_urlsafe(16),
        **_channels(f"http://127.0.0.1:{provider_port}", receiver_port, f"http://127.0.0.1:{zoo_port}" if zoo_port else None),
    }
    inherited = {name: value for name, value in environ.items() if not name.startswith(("CELERY_", "PROMETHEUS_MULTIPROC"))}
    return Plan(
        first=(
            "redis",
            [*_redis(server, redis_port), "--dir", str(directory)],
        ),
        others={
            "provider": [*_provider(provider_port), "--webhook-url", f"http://127.0.0.1:{receiver_port}/webhooks"],
            **({"providers": [sys.executable, "-m", "celery_obs.demo.provider.zoo", "--port", str(zoo_port)]} if zoo_port else {}),
            "exporter": [
                *exporter,
                "--metrics-dir",
                str(metrics_dir),
                "--redis-url",
                redis_url,
                "--broker-url",
                redis_url,
                "--enable-operations",
            ],
            "worker": [*worker, "--queues", "celery,alerts", "--concurrency", "6", "--hostname", "demo@%h", "--loglevel", "INFO"],
            "beat": [*celery, "beat", "--schedule", str(directory / "beat-schedule"), "--pidfile", "", "--loglevel", "INFO"],
            "load": [sys.executable, "-m", "celery_obs.demo.load"],
        },
        server_port=redis_port,
        url=f"http://127.0.0.1:{listen}",
        environ={**inherited, **ours},
    )


def _redis(server: str, port: int) -> list[str]:
    # With a limit, as every Redis should have one, and without throwing messages away when it is reached.
    limits = ["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"]
    return [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *limits]


def _provider(port: int) -> list[str]:
    channels = [word for channel in CHANNELS for word in ("--channel", channel)]
    lifetime = ["--token-lifetime", f"{_TOKEN_LIFETIME:g}", "--reuse-grace"]
    return [sys.executable, "-m", "celery_obs.demo.provider", "--port", str(port), *channels, *lifetime, "--webhook-every", "0.3"]


def _channels(url: str, receiver_port: int, zoo_url: str | None) -> dict[str, str]:
    """
    Return the settings of everything that has to do with channels; all is short, so that one sees it happen.
    """
    from cryptography.fernet import Fernet  # noqa: PLC0415 -- an extra.

    client_secret, webhook_secret = secrets.token_hex(16), secrets.token_hex(16)
    clients = {
        channel: {"token_url": f"{url}/{channel}/oauth/token", "client_id": "demo-client", "client_secret": client_secret}
        for channel in CHANNELS
    } | (providers.clients(zoo_url) if zoo_url else {})
    policies = {
        channel: {
            "circuit_breaker": {"failure_threshold": 3, "success_threshold": 2, "timeout": 3, "probe_timeout": 10},
            "rate_limits": "12/10s",
        }
        for channel in CHANNELS
    }
    return {
        **({providers.ZOO: zoo_url} if zoo_url else {}),
        PROVIDER: url,
        RECEIVER_PORT: str(receiver_port),
        WEBHOOK_SECRET: webhook_secret,
        "CELERY_OBS_DEMO_CLIENT_SECRET": client_secret,
        "CELERY_OBS_TOKEN_KEYS": Fernet.generate_key().decode(),
        "CELERY_OBS_OAUTH_CLIENTS": json.dumps(clients),
        "CELERY_OBS_CHANNELS": json.dumps(policies),
        "CELERY_OBS_RECONCILIATION_SOURCE": "celery_obs.demo.channel:SOURCE",
        "CELERY_OBS_RECONCILIATION_DAYS": str(HORIZON),
        "CELERY_OBS_PAUSE_RETRY_DELAY": "3",
        "CELERY_OBS_BEAT_PERIODS": "refresh_expiring_tokens=10,export_breaker_states=5,take_census=15,check_drift=30",
    }


def _checked_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            message = (
                f"The port {port} of 127.0.0.1 cannot be used ({error.strerror}). Name another one with --port, or none for any free one."
            )
            raise ConfigurationError(message) from error
    return port


def run(*, duration: float | None, port: int | None, directory: Path | None, out: TextIO, with_providers: bool = False) -> int:
    """
    Run the demo until it is interrupted or *duration* seconds are over; see `plan` for *with_providers*.

    Must be called in the main thread, because it listens to signals.

    Returns:
        0 if everything came up and metrics of tasks and syncs were scraped, else 1.
    """
    with _stopping() as stop, _workplace(directory) as place:
        temporary = () if directory is not None else (place,)
        what = plan(place, port=port, environ=os.environ, with_providers=with_providers)
        return show(what, place, duration=duration, stop=stop, out=out, temporary=temporary)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _workplace(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"The demo's directory {directory} cannot be made ({error.strerror}). Name another one with --dir."
            raise ConfigurationError(message) from error
        yield directory.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="celery_obs-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def show(what: Plan, place: Path, *, duration: float | None, stop: threading.Event, out: TextIO, temporary: Sequence[Path] = ()) -> int:
    """
    Start *what*, show its metrics until *stop* is set or *duration* is over, and stop it; see `Household` for *temporary*.
    """
    deadline = None if duration is None else time.monotonic() + duration
    seen = False
    with Household(place, what.environ, temporary=temporary) as household:
        try:
            if _bring_up(what, household, stop=stop, out=out):
                seen = _watch(what.url, household, deadline=deadline, stop=stop, out=out)
        except ChildFailedError as error:
            out.write(f"{error}\n")
            return 1
        finally:
            out.write("Stopping ...\n")
            out.flush()
    out.write("Everything is stopped.\n" if seen else "Stopped before any task and sync metrics were scraped.\n")
    return 0 if seen else 1


def _bring_up(what: Plan, household: Household, *, stop: threading.Event, out: TextIO) -> bool:
    name, command = what.first
    household.start(name, command)
    if not wait_until(_while_all_live(household, lambda: answers(what.server_port)), seconds=_PATIENCE, pause=stop.wait):
        return _gave_up(name, stop)
    for name, command in what.others.items():
        household.start(name, command)
    started = ", ".join((what.first[0], *what.others))
    out.write(f"Started {started}.\nMetrics:  {what.url}/metrics\nStatus:   {what.url}/\n{_try_this(what)}Stop with Ctrl-C.\n\n")
    out.flush()
    if not wait_until(_while_all_live(household, lambda: bool(_scrape(what.url))), seconds=_PATIENCE, pause=stop.wait):
        return _gave_up("exporter", stop)
    return True


def _try_this(what: Plan) -> str:
    token, redis_url = what.environ.get(_TOKEN), what.environ.get("CELERY_OBS_REDIS_URL")
    if not token:
        return ""
    outage = json.dumps({"kind": "outage", "path": "/airbnb/listings", "seconds": 60})
    return (
        f"Health:   celery-obs health --exporter-url {what.url} --redis-url {redis_url}\n"
        f"Pause:    curl -X POST -H 'Authorization: Bearer {token}' {what.url}/api/v1/channels/airbnb/pause-all\n"
        f"Break it: curl -X POST -d '{outage}' {what.environ.get(PROVIDER)}/admin/faults\n"
    )


def _while_all_live(household: Household, done: Callable[[], bool]) -> Callable[[], bool]:
    def check() -> bool:
        household.check()
        return done()

    return check


def _gave_up(name: str, stop: threading.Event) -> bool:
    if stop.is_set():
        return False
    message = f"The demo's {name} did not answer within {_PATIENCE:.0f} s."
    raise ChildFailedError(message)


def _watch(url: str, household: Household, *, deadline: float | None, stop: threading.Event, out: TextIO) -> bool:
    seen = False
    give_up = time.monotonic() + _PATIENCE
    screen = _Screen(out)
    while True:
        household.check()
        samples = _scrape(url)
        seen = seen or (has_task_metrics(samples) and has_sync_metrics(samples))
        screen.show(sections(samples, now=time.time()) if samples else [["the exporter does not answer"]])
        if not seen and time.monotonic() > give_up:
            message = f"No task and sync metrics appeared at {url}/metrics within {_PATIENCE:.0f} s."
            raise ChildFailedError(message)
        # The first table is worth having soon; after that a line every few seconds is enough where there is no terminal.
        pause = screen.refresh if seen else _REFRESH_ON_TTY
        if deadline is not None:
            pause = min(pause, deadline - time.monotonic())
        if (deadline is not None and pause <= 0) or stop.wait(pause):
            return seen


class _Screen:
    """
    Shows a table: on a terminal in place, as much of it as fits, else one after the other.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._in_place = out.isatty() and os.environ.get("TERM") != "dumb"
        self._size = os.terminal_size((0, 0))
        self._height = 0
        self.refresh = _REFRESH_ON_TTY if self._in_place else _REFRESH_IN_LOG

    def show(self, table: Sequence[Sequence[str]]) -> None:
        if not self._in_place:
            self._out.write("\n".join(joined(table)) + "\n\n")
            self._out.flush()
            return
        size = _size_of(self._out)
        # A line as wide as the terminal, or a table as high, would move all others.
        lines = fitted(table, rows=size.lines - 1, columns=size.columns - 1)
        if self._height:
            # What a terminal of another size made of the last table cannot be told, so that it begins anew.
            self._out.write(f"\x1b[{self._height}F\x1b[J" if size == self._size else "\x1b[2J\x1b[H")
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._height, self._size = len(lines), size


def _size_of(out: TextIO) -> os.terminal_size:
    try:
        size = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        return _USUAL_SIZE
    return size if size.columns > 0 and size.lines > 0 else _USUAL_SIZE


def _scrape(url: str) -> list[Sample]:
    request = urllib.request.Request(f"{url}/metrics", headers={"Accept": "text/plain"})  # noqa: S310 -- our own http URL.
    # A proxy of the environment has no business between us and loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=2.0) as answer:
            return read(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return []


def answers(port: int) -> bool:
    """
    Tell whether a process listens on *port* of loopback.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
