"""
The settings: declared once as data, read from Celery's configuration, the environment and the arguments of ``setup()``.

The later source wins.  Whatever is wrong is a `ConfigurationError` for the person who starts the program.
"""

from __future__ import annotations

import difflib
import re

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.metrics_dir import default_metrics_dir
from celery_obs.telemetry.redaction import redact, redact_url

from .kinds import (
    BUCKETS,
    CLIENT_ERRORS,
    CONNECTION_SOURCE,
    COUNT,
    DIRECTORY,
    LOG_FORMAT,
    LOG_LEVELS,
    LOG_SAMPLING,
    NAMES,
    OAUTH_CLIENTS,
    OPTIONAL_COUNT,
    OPTIONAL_SECONDS,
    OPTIONAL_SWITCH,
    OPTIONAL_TEXT,
    PATTERNS,
    PERIODS,
    POLICIES,
    POSITIVE,
    RECONCILIATION_SOURCE,
    REDIS_URL,
    SECONDS,
    SENTRY_DSN,
    SENTRY_MODE,
    SHARE,
    STACK_SIGNAL,
    SWITCH,
    TEXT,
    TIMEZONE,
    TOKEN_KEYS,
    TOKEN_SOURCE,
    Kind,
)
from .secrets import Hidden, Secret, safe, short


if TYPE_CHECKING:
    from celery_obs.areas.channels.failures import ClientError
    from celery_obs.areas.channels.policies import ChannelPolicy
    from celery_obs.state.broker import Broker

    from .oauth import OAuthClient


__all__ = ["SETTINGS", "Secret", "Setting", "Settings", "hidden", "load", "redact"]


class Setting(NamedTuple):
    """
    One setting, as the reference page lists it.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    secret: bool
    channels: bool
    """
    Whether it is about the sync engine alone: an app that sets it has channels.
    """

    @property
    def variable(self) -> str:
        """
        Name of its environment variable.
        """
        return f"CELERY_OBS_{self.name.upper()}"


def _setting(kind: Kind, help: str, *, default: Any = MISSING, secret: bool = False, channels: bool = False) -> Any:  # noqa: A002 -- the word for it.
    # Any: the dataclass field's own annotation says the type.
    metadata = {"kind": kind, "help": help, "secret": secret, "channels": channels}
    # A dataclass takes no dict as a default, lest its instances share it.
    return (
        field(default_factory=default.copy, metadata=metadata) if isinstance(default, dict) else field(default=default, metadata=metadata)
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """
    All settings, checked; made by `load`.

    Since 0.1.
    """

    metrics_dir: Path = _setting(
        DIRECTORY,
        "Directory of the metric files, which worker, beat and sidecar share. "
        "By default a directory of your user, under XDG_RUNTIME_DIR or the temporary directory.",
    )
    redis_url: str | None = _setting(
        REDIS_URL,
        "Redis in which the cluster shares its state. By default the broker, if that is Redis; without Redis only cluster features are off.",
        default=None,
        secret=True,
    )
    sync_engine: bool | None = _setting(
        OPTIONAL_SWITCH,
        "Whether the app syncs with channels. If so, tasks and schedule entries of ours look after tokens, connections, circuit breakers and drift. "
        "By default it does as soon as a setting about channels is set, a task is a SyncTask, or Redis knows a channel that was used.",
        default=None,
    )
    task_namespace: str = _setting(TEXT, "Prefix of the names of our own tasks.", default="channel_manager", channels=True)
    task_queue: str | None = _setting(
        OPTIONAL_TEXT,
        "Queue of our own tasks, regardless of the app's routes; a worker has to consume it. "
        "By default they go where the app's routes send channel_manager.*, else to the app's default queue.",
        default=None,
        channels=True,
    )
    metrics: bool = _setting(SWITCH, "Record metrics.", default=True)
    logs: bool = _setting(SWITCH, "Write JSON logs with task context.", default=True)
    log_format: str = _setting(
        LOG_FORMAT, "Format of log lines: json, console (for people), or auto: console on a terminal, else json.", default="auto"
    )
    log_levels: Mapping[str, str] = _setting(
        LOG_LEVELS, "Minimum level of single loggers, by name. All others follow the worker's -l.", default={}
    )
    log_sampling: Mapping[str, float] = _setting(
        LOG_SAMPLING,
        "Sampling rate (0 to 1) for success log lines, by patterns of task names; the first that matches counts. "
        "Other outcomes are always written.",
        default={},
    )
    redact_keys: tuple[str, ...] = _setting(NAMES, "Additional key names to redact, such as card_pin and passport.", default=())
    traces: bool = _setting(SWITCH, "Make spans, if the extra for tracing is installed.", default=True)
    errors: bool = _setting(SWITCH, "Report errors to Sentry, if its extra is installed and a DSN is set.", default=True)
    beat_schedule: bool = _setting(SWITCH, "Add our periodic tasks to beat's schedule.", default=True)
    beat_periods: Mapping[str, float] | None = _setting(
        PERIODS,
        "Seconds between two runs of our periodic tasks, instead of the defaults; 0 removes one from the schedule.",
        default=None,
        channels=True,
    )
    label_limit: int = _setting(
        POSITIVE,
        "Distinct values that a label of one metric may have, in addition to those that the app declares; further values are counted as _other. "
        "Registered tasks, declared queues, schedule entries and pool processes are never folded.",
        default=200,
    )
    lane_limit: int | None = _setting(
        OPTIONAL_COUNT,
        "Maximum number of values in a node's metric files, 8 bytes each in every process that uses them. "
        "By default as many as the registered tasks on their queues take, and 262144 for everything else.",
        default=None,
    )
    gauge_limit: int = _setting(POSITIVE, "Maximum number of gauge series of a node, at most 65535.", default=65535)
    call_in_tracer: bool = _setting(
        SWITCH,
        "Count attempts around Celery's tracer, in pool processes; elsewhere, and with traces, have the tracer call us directly while no other receiver "
        "listens to task_prerun or task_postrun. Off, signals are heard as ever, which takes two to three times as long.",
        default=True,
    )
    attempt_bytes: int = _setting(
        COUNT,
        "Bytes of disk, and of page cache, in which each pool process keeps its latest attempts for the command attempts, 128 each; 0 keeps none. "
        "By default 6144 attempts, which is an hour of a process that runs one in 0.6 s, and the last 2048 that did not succeed.",
        default=1 << 20,
    )
    stack_signal: str | None = _setting(
        STACK_SIGNAL,
        "Signal at which a process that runs attempts writes its stack, for the command stack and the exporter. By default none does.",
        default=None,
    )
    heartbeat_interval: float = _setting(SECONDS, "Seconds between two updates of the heartbeat file that probes read.", default=5.0)
    forget_after: float = _setting(
        SECONDS,
        "Seconds without a sign of life after which a node is forgotten: its gauges leave the page, celery_worker_up too, "
        "and its folder is merged into the remainder of the metrics directory. What it counted stays. Give the exporter the same value.",
        default=3600.0,
    )
    beat_hung_after: float = _setting(
        SECONDS,
        "Seconds that one pass of beat through its schedule may take. After that beat counts as hung, and its heartbeat stops.",
        default=300.0,
    )
    ignore_tasks: tuple[str, ...] = _setting(
        PATTERNS, "Tasks not to observe, as shell patterns of their names, such as reports.*.", default=()
    )
    runtime_buckets: tuple[float, ...] | None = _setting(
        BUCKETS, "Histogram buckets of the runtime of tasks, in seconds, instead of the defaults.", default=None
    )
    wait_buckets: tuple[float, ...] | None = _setting(
        BUCKETS, "Histogram buckets of the time from publish (or ETA) to start, in seconds, instead of the defaults.", default=None
    )
    latency_buckets: tuple[float, ...] | None = _setting(
        BUCKETS, "Histogram buckets of the time from due to done, in seconds, instead of the defaults.", default=None
    )
    node_name: str | None = _setting(OPTIONAL_TEXT, "Name of this node in metrics and file names, instead of Celery's.", default=None)
    pause_retry_delay: float = _setting(
        SECONDS, "Seconds after which a task of a paused channel is retried, plus or minus a fifth.", default=30.0, channels=True
    )
    held_back_max_age: float = _setting(
        SECONDS,
        "Seconds for which rate limits and circuit breakers may hold a sync task back before it fails. Pauses do not count.",
        default=86400.0,
        channels=True,
    )
    announce_queues: bool = _setting(SWITCH, "Announce in Redis which queues this worker consumes, for the exporters.", default=True)
    token_source: Any = _setting(
        TOKEN_SOURCE,
        "Store of the connections' tokens. By default Redis, encrypted with token_keys.",
        default=None,
        channels=True,
    )
    token_keys: tuple[str, ...] = _setting(
        TOKEN_KEYS,
        "Keys that encrypt the tokens in Redis. The first encrypts, all decrypt, so that keys can be rotated.",
        default=(),
        secret=True,
        channels=True,
    )
    oauth_clients: Mapping[str, OAuthClient] | None = _setting(
        OAUTH_CLIENTS, "How the tokens of each channel are refreshed.", default=None, secret=True, channels=True
    )
    token_refresh_ahead: float = _setting(
        SECONDS,
        "Seconds before its expiry at which a token is refreshed. For a token with a lifetime below three times that, it is a third of the lifetime.",
        default=900.0,
        channels=True,
    )
    token_refresh_on_get: float | None = _setting(
        OPTIONAL_SECONDS,
        "Seconds before its expiry from which on celery_obs.tokens.get() refreshes a token before returning it. By default it never does.",
        default=None,
        channels=True,
    )
    token_replicas: int = _setting(
        COUNT,
        "Redis replicas that must have a refreshed token before the refresh counts as done, so that a failover does not lose it. "
        "0 waits for none.",
        default=0,
        channels=True,
    )
    token_replicas_timeout: float = _setting(
        SECONDS,
        "Seconds that a refresh waits for token_replicas. After that it succeeds all the same, and channel_token_at_risk_total counts it.",
        default=5.0,
        channels=True,
    )
    channels: Mapping[str, ChannelPolicy] = _setting(
        POLICIES,
        "Policy of each channel, by its name, or * for all others: circuit_breaker is a preset (default, fhir, fitbit, withings), "
        "off, or a dict of thresholds, rates and timeouts; rate_limits is '100/60s', or a list with the hours and the algorithm of each; "
        "told_limits is auto, connection, channel or off.",
        default={},
        channels=True,
    )
    client_errors: tuple[ClientError, ...] = _setting(
        CLIENT_ERRORS,
        "What exceptions of client libraries unknown to celery_obs mean: their classes, each with a kind, "
        "or with where to find status, headers and code.",
        default=(),
        channels=True,
    )
    connection_source: Any = _setting(
        CONNECTION_SOURCE,
        "Source of all connections. By default those registered with celery_obs.register_connection().",
        default=None,
        channels=True,
    )
    connection_grace: float = _setting(
        SECONDS, "Seconds for which the data of a removed connection is kept.", default=7 * 86400.0, channels=True
    )
    reconciliation_source: Any = _setting(
        RECONCILIATION_SOURCE,
        "Source of both sides of a connection's calendar. Without it drift is not checked.",
        default=None,
        channels=True,
    )
    reconciliation_days: int = _setting(POSITIVE, "Days that reconciliation compares, from today on.", default=365, channels=True)
    reconciliation_timezone: str = _setting(
        TIMEZONE,
        "Time zone of reconciliation's today, for connections for which the source gives none.",
        default="UTC",
        channels=True,
    )
    sentry_dsn: str | None = _setting(
        SENTRY_DSN,
        "DSN to which worker and beat report errors. By default SENTRY_DSN; without either, only the one that the program itself gave to sentry_sdk.init.",
        default=None,
        secret=True,
    )
    sentry_mode: str = _setting(
        SENTRY_MODE,
        "full lets sentry-sdk observe every task; light only reports failures, at a tenth of the cost for a task that succeeds.",
        default="full",
    )
    sentry_crons: bool = _setting(SWITCH, "Let Sentry monitor beat's schedule: a monitor and check-ins for each entry.", default=False)
    sentry_sample_rate: float = _setting(SHARE, "Sampling rate (0 to 1) for error reports.", default=1.0)
    sentry_ignore: tuple[str, ...] = _setting(
        NAMES,
        "Exceptions not to report, with their subclasses: the name of the class, or its dotted path.",
        default=(),
    )

    broker_redis: Broker | None = None
    """
    No setting: the app's broker, where that is a Redis and ``redis_url`` is not set.
    """

    @property
    def redis(self) -> str | Broker | None:
        """
        Where the cluster shares its state: what is set, else what was inferred; None where nothing is shared.
        """
        return self.redis_url or self.broker_redis

    def __repr__(self) -> str:
        """
        Show everything but secrets.
        """
        shown = (f"{setting.name}={_shown(setting, getattr(self, setting.name))}" for setting in SETTINGS)
        return f"Settings({', '.join(shown)})"


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        each.name,
        each.metadata["kind"],
        each.default if each.default is not MISSING else each.default_factory() if each.default_factory is not MISSING else None,
        each.metadata["help"],
        each.metadata["secret"],
        each.metadata["channels"],
    )
    for each in fields(Settings)
    if each.metadata
)
"""
The settings as data, in the order of the reference page.
"""

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}


# --- reading ---


class _Found(NamedTuple):
    """
    A value that was set, and where.
    """

    key: str
    value: Any
    source: str


def load(conf: Mapping[Any, Any], environ: Mapping[str, str], overrides: Mapping[str, Any]) -> Settings:
    """
    Read the settings.

    Args:
        conf:
            Celery's configuration.  Read are the dict ``celery_obs`` and the keys ``obs_…``;
            with Django's namespace these are ``CELERY_OBS`` and ``CELERY_OBS_…``.

        environ:
            The environment; ``CELERY_OBS_…`` wins over *conf*.  An empty variable counts as not set, and one that is no setting is left alone:
            it may be another program's, or the option of a command (`celery_obs.settings.environment`).

        overrides: Arguments of ``setup()``; they win over everything.

    Raises:
        ConfigurationError: for an unknown setting in *conf* or *overrides*, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    for key, value, source in (*_from_dict(conf), *_from_keys(conf)):
        setting = _known(key, value, source)
        values[setting.name] = _checked(setting, value, source)
    for variable, text, source in _from_environ(environ):
        setting = _BY_VARIABLE[variable]
        values[setting.name] = _parsed(setting, text, source)
    for key, value in overrides.items():
        source = "argument of setup()"
        setting = _known(key, value, source)
        values[setting.name] = _checked(setting, value, source)
    if "metrics_dir" not in values:
        values["metrics_dir"] = default_metrics_dir(environ)
    return Settings(**values)


def _is_dict_key(key: Any) -> bool:
    return isinstance(key, str) and key.lower() in {"celery_obs", "obs"}


def _from_dict(conf: Mapping[Any, Any]) -> Iterator[_Found]:
    for key in conf:
        if not _is_dict_key(key):
            continue
        source = f"{key} dict in Celery's configuration"
        inner = conf[key]
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            message = f"{key} in Celery's configuration is {safe(str(key), inner)}. Expected a dict of settings, for example {{'metrics_dir': '/run/celery_obs'}}."
            raise ConfigurationError(message)
        for name in inner:
            yield _Found(name, _revealed(inner[name]), source)


def _from_keys(conf: Mapping[Any, Any]) -> Iterator[_Found]:
    for key in conf:
        # Few of Celery's hundreds of keys, which each app that is configured goes through twice.
        if not isinstance(key, str) or "obs_" not in key.lower() or _is_dict_key(key):
            continue
        # Celery keeps the namespace in the keys that it lists: CELERY_OBS_METRICS_DIR for obs_metrics_dir.
        match = re.fullmatch(r"(?:celery_)?obs_(.+)", key.lower())
        if match and match[1] != "app":  # Which app to observe, for celery_obs.django.
            yield _Found(match[1], _revealed(conf[key]), f"{key} in Celery's configuration")


def _revealed(value: Any) -> Any:
    return value.reveal() if isinstance(value, Hidden) else value


def hidden(conf: Mapping[Any, Any]) -> dict[str, Any]:
    """
    Return what to put into Celery's configuration in the place of our keys there, so that who shows it shows none of our secrets.

    `load` reads it as if nothing had changed.
    """
    changes: dict[str, Any] = {}
    for key in conf:
        if _is_dict_key(key) and isinstance(conf[key], Mapping):
            changes[key] = {name: _hidden(str(name), value) for name, value in conf[key].items()}
    for name, value, source in _from_keys(conf):
        changes[source.partition(" ")[0]] = _hidden(name, value)
    return {key: value for key, value in changes.items() if value is not conf[key] and repr(value) != repr(conf[key])}


def _hidden(name: str, value: Any) -> Any:
    setting = _BY_NAME.get(name)
    if value is None or isinstance(value, Hidden) or (setting is not None and not setting.secret):
        return value
    # What we do not know may be the misspelt name of a secret.
    return Hidden(value, _shown_url(value) if setting is not None and setting.kind is REDIS_URL else "***")


def _from_environ(environ: Mapping[str, str]) -> Iterator[_Found]:
    for variable in environ:
        if variable in _BY_VARIABLE and environ[variable].strip():
            yield _Found(variable, environ[variable], f"environment variable {variable}")


def _known(key: Any, value: Any, source: str) -> Setting:
    setting = _BY_NAME.get(key) if isinstance(key, str) else None
    if setting is None:
        subject = f"Unknown setting {key!r} ({source})"
        raise _unknown(subject, key, value, _BY_NAME)
    return setting


def _unknown(what: str, key: Any, value: Any, candidates: Mapping[str, Setting]) -> ConfigurationError:
    close = difflib.get_close_matches(str(key), candidates, n=1, cutoff=0.7)
    shown = "***" if close and candidates[close[0]].secret else safe(str(key), value)
    message = f"{what}; its value is {shown}."
    advice = f" Did you mean {close[0]}?" if close else f" Expected one of: {', '.join(candidates)}."
    return ConfigurationError(message + advice)


def _checked(setting: Setting, value: Any, source: str) -> Any:
    try:
        return setting.kind.check(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise _wrong(setting, value, source, error) from None


def _parsed(setting: Setting, text: str, source: str) -> Any:
    try:
        return setting.kind.check(setting.kind.parse(text.strip()))
    except (ValueError, TypeError, OverflowError) as error:
        raise _wrong(setting, text, source, error) from None


def _wrong(setting: Setting, value: Any, source: str, error: Exception) -> ConfigurationError:
    default = "" if setting.default is None else f" The default is {setting.default!r}."
    shown = "***" if setting.secret and setting.kind is not REDIS_URL else _shown_url(value) if setting.kind is REDIS_URL else short(value)
    detail = f" Reason: {redact(str(error))}." if getattr(error, "tells_reason", False) else ""
    message = f"The setting {setting.name} is {shown} ({source}). Expected {setting.kind.expected}.{detail}{default}"
    return ConfigurationError(message)


def _shown(setting: Setting, value: Any) -> str:
    if not setting.secret or not value:
        return repr(value)
    return _shown_url(value) if setting.kind is REDIS_URL else "***"


def _shown_url(value: Any) -> str:
    return repr(redact_url(value)) if isinstance(value, str) else type(value).__name__
