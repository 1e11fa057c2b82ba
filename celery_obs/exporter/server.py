"""
The exporter as a process: options in, sockets open, served until it is asked to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import ssl

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from celery_obs.areas import left_out_if_broken, optional, parts
from celery_obs.exceptions import ConfigurationError
from celery_obs.state.broker import Broker, reason_of
from celery_obs.state.lease import Lease
from celery_obs.telemetry.redaction import redact_url
from celery_obs.throttle import LogThrottle, ThrottleFilter

from .api.attempts import AttemptsApi
from .api.history import HistoryApi
from .api.routes import Api
from .app import Check, create_app, directory_check
from .door import KEEP_ALIVE, MOST_CONNECTIONS, Server, visitor_type
from .health import Health
from .history.file import LEAST_BYTES
from .history.of_areas import declared
from .history.sampler import History, Reading, Sampler
from .hosts import AllowedHosts
from .options import Options, Scope, Sidecar
from .probes import is_redis, scheme_of
from .scrape import Collector, InternalErrors, Runner
from .web_config import WebConfigFile


if TYPE_CHECKING:
    from celery_obs.areas.channels.overview import Overview


__all__ = [
    "Options",
    "Scope",
    "build_checks",
    "build_collectors",
    "build_history",
    "build_lease",
    "listen",
    "operations_token",
    "parse_address",
    "run",
]


LONGEST_HEAD: Final = 16 * 1024
SHORTEST_TOKEN: Final = 16

_LAST_PORT = 65535

log = logging.getLogger("celery_obs.exporter")


def build_collectors(options: Options, errors: InternalErrors, *, overview: Callable[[], Overview] | None = None) -> list[Collector]:
    """
    Make the collectors of all areas that *options* ask for, those first that win where two show one series: what only this sidecar shows, then what is shared.

    Args:
        overview: Reads the cluster's state; None where there is none to serve.

    Raises:
        ConfigurationError: if a URL cannot be used.
    """
    sidecar = Sidecar(options=options, errors=errors, folded=InternalErrors(), overview=overview, redis=_redis)
    collectors: list[Collector] = []
    for area, part in parts("collector"):
        with left_out_if_broken(area, "collector"):
            collectors.extend(part.collectors(sidecar))
    if options.serves_workers and options.multiproc_dir is not None:
        from .multiprocess import StockCollector

        collectors.append(StockCollector(options.multiproc_dir, errors=errors))
    return sorted(collectors, key=lambda each: bool(getattr(each, "shared", False)))


def build_lease(options: Options, errors: InternalErrors) -> Lease | None:
    """
    Make our side of the lease; None without a Redis, where every exporter serves the queues that it knows.
    """
    if not options.shares_state:
        return None
    throttle = LogThrottle()

    def report(error: Exception) -> None:
        errors.count("lease")
        if throttle.allows(type(error).__name__):
            log.warning(
                "Cannot take or renew the lease in Redis, so no exporter serves the cluster's state: %s",
                reason_of(error, options.state or ""),
            )

    return Lease(_redis(options.state or ""), period=options.lease_period, on_error=report)


def build_history(options: Options, errors: InternalErrors) -> History | None:
    """
    Make the history; None where none is to be kept.

    Raises:
        ConfigurationError: if its room is too small for any.
    """
    if not options.history_bytes:
        return None
    if options.history_bytes < LEAST_BYTES:
        message = f"--history-bytes is {options.history_bytes}. Expected 0 to keep no history, or at least {LEAST_BYTES}."
        raise ConfigurationError(message)
    return History(options.history, options.history_bytes, tuple(declared()), errors=errors)


def operations_token(options: Options) -> str:
    """
    Return what callers of operations have to know; empty where operations are off.

    Raises:
        ConfigurationError: if operations are to be on and cannot be.
    """
    if not options.enable_operations:
        return ""
    if not options.shares_state:
        message = "--enable-operations needs a Redis with the cluster's state. Expected --redis-url, and --scope cluster or all."
        raise ConfigurationError(message)
    token = options.operations_token
    if options.operations_token_file is not None:
        try:
            token = options.operations_token_file.read_text().strip()
        except (OSError, ValueError) as error:
            # Of a text that cannot be decoded, no byte.
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            message = (
                f"--operations-token-file {options.operations_token_file} cannot be read: {reason}. Expected a file that holds the token."
            )
            raise ConfigurationError(message) from None
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        message = (
            f"The operations token has {len(token)} characters. Expected at least {SHORTEST_TOKEN} printable ones of ASCII, such as "
            "`openssl rand -hex 32` makes, in the file that --operations-token-file names, or in CELERY_OBS_OPERATIONS_TOKEN."
        )
        raise ConfigurationError(message)
    return token


def build_checks(options: Options) -> tuple[Check, ...]:
    """
    Make the checks that readiness needs.
    """
    checks: list[Check] = []
    if options.serves_workers:
        checks.append(directory_check(options.directory))
    if options.shares_state:
        client = _redis(options.state or "")
        checks.append(Check("redis", lambda: client.ping() and None))
    return tuple(checks)


def _redis(place: str | Broker) -> Any:
    from celery_obs.state.connection import connect

    # A Redis Cluster can hold the state, though it can be no broker.
    if isinstance(place, str) and not is_redis(place) and not scheme_of(place).endswith("+cluster"):
        message = (
            f"{redact_url(place)!r} is not a Redis URL. Expected redis://user:password@host:6379/0, rediss://… or redis+socket:///path."
        )
        raise ConfigurationError(message)
    return connect(place)


def parse_address(address: str) -> tuple[str, int]:
    """
    Divide ``host:port``, ``[::1]:port`` or ``:port``, where no host stands for all interfaces.

    Raises:
        ConfigurationError: for anything else.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > _LAST_PORT or (":" in host and not bracketed):
        message = (
            f"--web.listen-address is {address!r}. Expected host:port, such as 127.0.0.1:19540, [::1]:19540, or :19540 for all interfaces."
        )
        raise ConfigurationError(message)
    return (host[1:-1] if bracketed else host), int(port)


def listen(address: str) -> socket.socket:
    """
    Open the socket of a listen address.

    Raises:
        ConfigurationError: if the address cannot be had.
    """
    host, port = parse_address(address)
    try:
        if not host:
            return _everywhere(port)
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(place[:2], family=family, backlog=128)
    except socket.gaierror as error:
        message = f"--web.listen-address is {address!r}, and the host {host!r} is not known: {error.strerror}. Expected an address of this machine."
        raise ConfigurationError(message) from error
    except OSError as error:
        advice = {
            "EADDRINUSE": "Another program is listening there, perhaps another exporter. Stop it, or choose another port.",
            "EACCES": "Ports below 1024 are for root. Choose another port.",
            "EADDRNOTAVAIL": "This machine has no such address. Choose one that it has.",
        }
        import errno

        reason = errno.errorcode.get(error.errno or 0, "")
        message = (
            f"Cannot listen on {address} ({os.strerror(error.errno or 0)}). {advice.get(reason, 'Choose another --web.listen-address.')}"
        )
        raise ConfigurationError(message) from error


def _everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    return socket.create_server(("", port), backlog=128)


def run(options: Options) -> None:
    """
    Serve until SIGTERM or SIGINT, then finish what is under way and return.

    Raises:
        ConfigurationError: if the options cannot work.
    """
    errors = InternalErrors()
    web = WebConfigFile(options.web_config, errors=errors) if options.web_config is not None else None
    lease = build_lease(options, errors)
    client = _redis(options.state or "") if options.shares_state else None
    channels = optional("channels", "overview")
    overview = channels.OverviewReader(client).read if client is not None and channels is not None else None
    runner = Runner(build_collectors(options, errors, overview=overview), errors, gate=lease)
    history = build_history(options, errors)
    app = create_app(
        runner,
        build_checks(options),
        web=web.current if web is not None else None,
        api=Api(client, token=operations_token(options), metrics_dir=options.directory if options.serves_workers else None),
        attempts=AttemptsApi(options.directory if options.serves_workers else None),
        history=HistoryApi(history.read if history is not None else None),
        overview=overview,
        leader=lease.holder if lease is not None else str,
        hosts=AllowedHosts(options.allowed_hosts, listening=[parse_address(address)[0] for address in options.addresses]),
        health=Health(watches_workers=options.serves_workers, watches_queues=options.serves_cluster and bool(options.brokers)),
    )
    raise_file_limit()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(listen(address)) for address in options.addresses]
        server = _server(app, web)
        if lease is not None:
            lease.start()
            stack.callback(lease.stop)
        if history is not None:
            sampler = Sampler(runner, history, Reading(declared()), errors=errors)
            sampler.start()
            stack.callback(sampler.stop)
        with _obeying_signals(server, web), _in_few_words():
            log.info(
                "Serving on %s; scope %s, metric files in %s, broker %s.",
                ", ".join(_shown(each, tls=web is not None and web.current().tls is not None) for each in sockets),
                options.scope,
                options.directory if options.serves_workers else "no directory",
                ", ".join(broker.shown for broker in options.brokers) or "not asked",
            )
            asyncio.run(server.serve(sockets=sockets))


def _server(app: Any, web: WebConfigFile | None) -> Server:
    config = uvicorn.Config(
        app,
        http=visitor_type(lambda transport: _is_allowed(transport, web)),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=3,
    )
    config.load()
    config.ssl = web.tls_context() if web is not None else None
    return Server(config, most=_most_connections())


def _most_connections() -> int:
    """
    Leave half of the files that may be open to what is read: metric files, Redis, certificates.
    """
    return max(1, min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))


def _is_allowed(transport: asyncio.Transport, web: WebConfigFile | None) -> bool:
    tls = web.current().tls if web is not None else None
    if tls is None or not tls.allowed_names:
        return True
    certificate: Mapping[str, Any] | None = transport.get_extra_info("peercert")
    if not certificate:
        # Without one, only VerifyClientCertIfGiven lets a client come this far, and then it means to.
        return tls.context.verify_mode == ssl.CERT_OPTIONAL
    names = {value for _, value in certificate.get("subjectAltName", ())}
    return not tls.allowed_names.isdisjoint(names)


def raise_file_limit() -> None:
    """
    Allow this process as many open files as it may have: one for each metric file and each connection.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _obeying_signals(server: Server, web: WebConfigFile | None) -> Iterator[None]:
    """
    Let a stop that was asked for end in a return, from the first moment on, and SIGHUP in another look at the web configuration.

    uvicorn listens to signals once it serves, and raises the one that stopped it again when it has finished; before and after, this does.
    """

    def stop(*_: object) -> None:
        server.should_exit = True

    def reload(*_: object) -> None:
        server.soon(web.reload if web is not None else _tell_nothing_to_reload)

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_nothing_to_reload() -> None:
    log.info("SIGHUP: there is no --web.config.file to read again.")


@contextlib.contextmanager
def _in_few_words() -> Iterator[None]:
    """
    Let uvicorn and asyncio say each thing once a minute: what strangers send must not fill the disk.
    """
    throttled = ThrottleFilter(lambda record: (record.name, str(record.msg).partition("\n")[0]))
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for each in loggers:
        each.addFilter(throttled)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(throttled)


def _shown(opened: socket.socket, *, tls: bool) -> str:
    host, port = opened.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
