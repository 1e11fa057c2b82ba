"""
The command ``exporter``: the sidecar.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from celery_obs.exceptions import CeleryObsError, MissingExtraError
from celery_obs.recorder.format import FORGET_AFTER
from celery_obs.telemetry.redaction import redact

from .brokers import BrokerOptions, broker_options, configured_app


if TYPE_CHECKING:
    from celery_obs.state.broker import Broker


__all__ = ["exporter"]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True})
@click.option(
    "--metrics-dir",
    type=click.Path(path_type=Path),
    envvar="CELERY_OBS_METRICS_DIR",
    help="Metrics directory.  [default: the workers']",
)
@click.option(
    "--redis-url", default="", envvar="CELERY_OBS_REDIS_URL", show_default="the broker's, if Redis", help="Redis of the cluster's state."
)
@broker_options
@click.option("--queues", default="", envvar="CELERY_OBS_QUEUES", show_default="announced ones", help="More queues, separated by commas.")
@click.option(
    "--web.listen-address",
    "addresses",
    multiple=True,
    default=("127.0.0.1:19540",),
    envvar="CELERY_OBS_WEB_LISTEN_ADDRESS",
    show_default="127.0.0.1:19540",
    help="host:port; may be repeated.",
)
@click.option(
    "--web.allowed-hosts",
    "allowed_hosts",
    default="",
    envvar="CELERY_OBS_WEB_ALLOWED_HOSTS",
    show_default="localhost if only that listens, else any",
    help="Host names that requests may use, separated by commas.",
)
@click.option(
    "--web.config.file", "web_config", type=click.Path(path_type=Path), envvar="CELERY_OBS_WEB_CONFIG_FILE", help="TLS, users, headers."
)
@click.option("--scope", type=click.Choice(["worker", "cluster", "all"]), default="all", envvar="CELERY_OBS_SCOPE", help="What to serve.")
@click.option(
    "--multiproc-dir",
    type=click.Path(path_type=Path),
    envvar=["CELERY_OBS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROC_DIR"],
    help="More to serve, of prometheus_client.",
)
@click.option(
    "--forget-after",
    type=click.FloatRange(1),
    default=FORGET_AFTER,
    metavar="SECONDS",
    envvar="CELERY_OBS_FORGET_AFTER",
    help="How long a vanished worker is shown.",
)
@click.option(
    "--lease-period",
    type=click.FloatRange(0.3, 3600),
    default=10.0,
    metavar="SECONDS",
    envvar="CELERY_OBS_LEASE_PERIOD",
    help="Lease of the leader; the same on all exporters of a Redis.",
)
@click.option(
    "--enable-operations",
    is_flag=True,
    envvar="CELERY_OBS_ENABLE_OPERATIONS",
    help="Allow operations (pause, …); needs a token.",
)
@click.option(
    "--operations-token-file",
    type=click.Path(path_type=Path),
    envvar="CELERY_OBS_OPERATIONS_TOKEN_FILE",
    show_default="CELERY_OBS_OPERATIONS_TOKEN",
    help="File with the token for operations.",
)
@click.option(
    "--history-bytes",
    type=click.IntRange(0, 64 * 1024 * 1024),
    default=4 * 1024 * 1024,
    metavar="BYTES",
    envvar="CELERY_OBS_HISTORY_BYTES",
    help="Room for two hours of history; 0 keeps none.",
)
@click.option(
    "--history-file",
    type=click.Path(path_type=Path),
    envvar="CELERY_OBS_HISTORY_FILE",
    show_default="beside the metrics",
    help="Its file.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    envvar="CELERY_OBS_LOG_LEVEL",
)
@click.option("--log-format", type=click.Choice(["text", "json", "console", "auto"]), default="text", envvar="CELERY_OBS_LOG_FORMAT")
@click.pass_context
def exporter(
    ctx: click.Context,
    *,
    metrics_dir: Path | None,
    redis_url: str,
    brokers: BrokerOptions,
    queues: str,
    addresses: tuple[str, ...],
    allowed_hosts: str,
    web_config: Path | None,
    scope: Literal["worker", "cluster", "all"],
    multiproc_dir: Path | None,
    forget_after: float,
    lease_period: float,
    enable_operations: bool,
    operations_token_file: Path | None,
    history_bytes: int,
    history_file: Path | None,
    log_level: str,
    log_format: Literal["text", "json", "console", "auto"],
) -> None:
    """
    Serve /metrics beside a worker, until Ctrl-C or SIGTERM.

    Every option is also an environment variable: CELERY_OBS_ and its name.
    As "celery -A proj obs exporter" it reads what is not given from the app.
    """
    _log_to_stderr(log_level, log_format)
    try:
        app = configured_app(ctx)
        known = _known_to(app) if app is not None else _Known()
        _serve(
            metrics_dir=metrics_dir or known.metrics_dir,
            redis_url=redis_url or known.redis_url,
            shared=known.shared,
            brokers=brokers.brokers(app),
            queues=tuple(dict.fromkeys((*(name.strip() for name in queues.split(",") if name.strip()), *known.queues))),
            addresses=addresses,
            allowed_hosts=tuple(name.strip() for name in allowed_hosts.split(",") if name.strip()),
            web_config=web_config,
            scope=scope,
            multiproc_dir=multiproc_dir,
            forget_after=forget_after,
            lease_period=lease_period,
            enable_operations=enable_operations,
            # By the environment or a file only: a command line is for all to see.
            operations_token=os.environ.get("CELERY_OBS_OPERATIONS_TOKEN", ""),
            operations_token_file=operations_token_file,
            history_bytes=history_bytes,
            history_file=history_file,
        )
    except CeleryObsError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


class _Known(NamedTuple):
    """
    What an app says of what was not given.
    """

    metrics_dir: Path | None = None
    redis_url: str = ""
    shared: Broker | None = None
    queues: tuple[str, ...] = ()


def _known_to(app: Any) -> _Known:
    """
    Read the configuration of *app*.

    Raises:
        ConfigurationError: if our settings in it are wrong.
    """
    from celery_obs.areas.queues.metrics import shared_label  # noqa: PLC0415
    from celery_obs.settings import load  # noqa: PLC0415 -- help is quick.
    from celery_obs.state.connection import shared_by  # noqa: PLC0415

    settings = load(app.conf, os.environ, {})
    shared = None if settings.redis_url else shared_by(app)
    queues = tuple(str(queue.name) for queue in app.amqp.queues.values() if not shared_label(queue))
    return _Known(settings.metrics_dir, settings.redis_url or "", shared, queues)


def _serve(**options: Any) -> None:
    try:
        from celery_obs.exporter.server import Options, run  # noqa: PLC0415 -- the extra may be missing.
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"anyio", "h11", "prometheus_client", "starlette", "uvicorn"}:
            raise
        feature = "The exporter"
        raise MissingExtraError(feature, extra="exporter") from error
    run(Options(**options))


def _log_to_stderr(level: str, style: str) -> None:
    handler = logging.StreamHandler()
    is_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    handler.setFormatter(_JsonLines() if is_json else _Lines("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # asyncio's words about its selector, and uvicorn's about its start, are no news to an operator.
    # What operators do is always said.
    logging.getLogger("celery_obs.audit").setLevel(logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _Lines(logging.Formatter):
    """
    A line of text, and a traceback where there is one; without secrets, whichever library wrote it.
    """

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _JsonLines(logging.Formatter):
    """
    One JSON object a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line)
