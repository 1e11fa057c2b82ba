"""
What the sidecar is asked for, and what areas make their collectors of.
"""

from __future__ import annotations

import os

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from celery_obs.recorder.format import FORGET_AFTER
from celery_obs.recorder.metrics_dir import HISTORY, default_metrics_dir
from celery_obs.state.broker import Broker
from celery_obs.state.lease import PERIOD
from celery_obs.telemetry.redaction import redact_url

from .scrape import InternalErrors


if TYPE_CHECKING:
    from celery_obs.areas.channels.overview import Overview


__all__ = ["HISTORY_BYTES", "Options", "Scope", "Sidecar"]


Scope = Literal["worker", "cluster", "all"]
"""
What is served: *worker*, the metrics of the processes beside us; *cluster*, what all workers share; or both.
"""

DEFAULT_ADDRESS: Final = "127.0.0.1:19540"

HISTORY_BYTES: Final = 4 * 1024 * 1024
"""
Room of the history: some 660 series, which is what 70 tasks have.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What the command line says.

    Attributes:
        metrics_dir: Where the workers beside us write; by default the same as theirs.

        redis_url: Where the cluster shares its state; by default *shared*, else the first broker that is a Redis.  May hold a password.

        shared: The same as an app has it.

        brokers: Which brokers to ask about queues; with several, each series of theirs has a label ``broker``.

        queues: Names of queues to look at, beside those that workers announce.

        addresses: Where to listen, as ``host:port``.

        allowed_hosts: What requests may call this host; empty for names of loopback where only loopback is listened on, else any.

        web_config: The file with TLS, users and headers.

        multiproc_dir: A multiprocess directory of prometheus_client's to serve as well.

        forget_after: Seconds for which a worker that went without a word is shown as down.

        lease_period: Seconds for which one exporter is the one that serves what the cluster shares; the same for all.

        enable_operations: Whether channels can be paused, and so on, over HTTP.

        operations_token: What callers of the operations have to know, where no file has it.

        operations_token_file: The file that has it.

        history_bytes: How much room the history of two hours has; 0 keeps none.

        history_file: Where it is; by default in the metrics directory.
    """

    metrics_dir: Path | None = None
    redis_url: str = ""
    shared: Broker | None = None
    brokers: tuple[Broker, ...] = ()
    queues: tuple[str, ...] = ()
    addresses: tuple[str, ...] = (DEFAULT_ADDRESS,)
    allowed_hosts: tuple[str, ...] = ()
    web_config: Path | None = None
    scope: Scope = "all"
    multiproc_dir: Path | None = None
    forget_after: float = FORGET_AFTER
    lease_period: float = PERIOD
    enable_operations: bool = False
    operations_token: str = ""
    operations_token_file: Path | None = None
    history_bytes: int = HISTORY_BYTES
    history_file: Path | None = None

    def __repr__(self) -> str:
        """
        Show everything but the passwords.
        """
        return f"Options(metrics_dir={self.metrics_dir}, redis_url={redact_url(self.redis_url)!r}, brokers={self.brokers!r}, scope={self.scope!r})"

    @property
    def directory(self) -> Path:
        return self.metrics_dir or default_metrics_dir(os.environ)

    @property
    def history(self) -> Path | None:
        """
        Where the history is; None to keep it in memory, where this exporter serves no metrics directory.
        """
        return self.history_file or (self.directory / HISTORY if self.serves_workers else None)

    @property
    def state(self) -> str | Broker | None:
        """
        The Redis of the cluster's state; None where there is none.
        """
        return self.redis_url or self.shared or next((broker for broker in self.brokers if broker.is_redis), None)

    @property
    def serves_workers(self) -> bool:
        return self.scope in {"worker", "all"}

    @property
    def serves_cluster(self) -> bool:
        return self.scope in {"cluster", "all"}

    @property
    def shares_state(self) -> bool:
        return self.serves_cluster and bool(self.state)


class Sidecar(NamedTuple):
    """
    What an area's ``collectors`` gets.

    Attributes:
        options: What the command line says.

        errors: Counts what goes wrong, by component.

        folded: Counts, by metric, the series that went to ``_other``.

        overview: Reads the state that all workers share; None where there is none to serve.

        redis: Makes a client of a URL or broker; raises ConfigurationError for what is no Redis.
    """

    options: Options
    errors: InternalErrors
    folded: InternalErrors
    overview: Callable[[], Overview] | None
    redis: Callable[[str | Broker], Any]
