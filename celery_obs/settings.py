"""
The settings: declared once as data, read from Celery's configuration, the environment and the arguments of ``setup()``.

The later source wins.  Whatever is wrong is a `ConfigurationError` for the person who starts the program.
"""

from __future__ import annotations

import base64
import difflib
import json
import math
import os
import re
import stat
import tempfile

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from .exceptions import ConfigurationError
from .vocabulary.policies import ChannelPolicy, PolicyError, policies


__all__ = [
    "SETTINGS",
    "OAuthClient",
    "Secret",
    "Setting",
    "Settings",
    "default_metrics_dir",
    "load",
    "mask",
    "prepare_metrics_dir",
    "reference",
]


class Kind(NamedTuple):
    """
    A type of setting.

    Attributes:
        expected: What a right value is, in words that follow "expected".

        check: Turns a Python value into the setting's; ValueError where it cannot.

        parse: Turns a text from the environment into something for *check*.
    """

    expected: str
    check: Callable[[Any], Any]
    parse: Callable[[str], Any] = str


class Setting(NamedTuple):
    """
    One setting, as the reference page lists it.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    secret: bool

    @property
    def variable(self) -> str:
        """
        Name of its environment variable.
        """
        return f"CELERY_OBS_{self.name.upper()}"


# --- kinds ------------------------------------------------------------------------------------------------------------------------

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_REDIS_SCHEMES = (
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    "sentinel",
    "redis+socket",
    "redis+cluster",
    "rediss+cluster",
    "valkey+cluster",
    "valkeys+cluster",
)


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _parse_switch(text: str) -> bool:
    word = text.strip().lower()
    if word in _YES | _NO:
        return word in _YES
    raise ValueError


def _count(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        raise ValueError

    return check


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError


def _seconds(value: Any) -> float:
    number = _number(value)
    if number > 0:
        return number
    raise ValueError


def _text(value: Any) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise ValueError


def _directory(value: Any) -> Path:
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        # The sidecar may run in another directory, so that a relative path would mean another place to it.
        return Path(os.fspath(value)).expanduser().absolute()
    raise ValueError


def _redis_url(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and any(value.startswith(f"{scheme}://") for scheme in _REDIS_SCHEMES):
        return value
    raise ValueError


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_text(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value))
    raise ValueError


def _edges(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    edges = tuple(_number(item) for item in value)
    if edges and list(edges) == sorted(set(edges)):
        return edges
    raise ValueError


class Secret(str):
    """
    A text that shows only when somebody prints it on purpose: never in a ``repr``, and so in no traceback with its locals.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """
        Show that there is one.
        """
        return "'***'"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """
    How a channel's tokens are refreshed.

    Attributes:
        token_url: The channel's token endpoint.

        client_id, client_secret: Who we are to the channel.

        token_endpoint_auth_method: Where we say that: ``client_secret_basic``, ``client_secret_post`` or ``none``.

        scope: What we ask for; empty for what was granted.

        timeout: Seconds that one refresh may take.

        lifetime: Seconds that a token is good for where the channel does not say; None where nobody knows.
    """

    token_url: str
    client_id: str
    client_secret: Secret = Secret()
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 -- the name of a method.
    scope: str = ""
    timeout: float = 10.0
    lifetime: float | None = None

    def __post_init__(self) -> None:
        """
        See to it that the secret is one.
        """
        object.__setattr__(self, "client_secret", Secret(self.client_secret))  # It is frozen.


AUTH_METHODS: Final = ("client_secret_basic", "client_secret_post", "none")
_LONGEST_TIMEOUT: Final = 60.0
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def _token_keys(value: Any) -> tuple[Secret, ...]:
    """
    Check that each is a key of Fernet's: 32 bytes in URL-safe base64.
    """
    if not isinstance(value, (str, list, tuple)):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    value = _parse_list(value) if isinstance(value, str) else value
    keys = tuple(Secret(_text(item).strip()) for item in value)
    for key in keys:
        if len(base64.b64decode(key, altchars=b"-_", validate=True)) != 32:  # noqa: PLR2004 -- what a key of Fernet's is.
            raise ValueError
    return keys


def _oauth_clients(value: Any) -> Mapping[str, OAuthClient] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    return MappingProxyType({_text(channel): _oauth_client(channel, given) for channel, given in value.items()})


def _oauth_client(channel: str, given: Any) -> OAuthClient:
    known = {each.name for each in fields(OAuthClient)}
    if isinstance(given, OAuthClient):
        given = {name: getattr(given, name) for name in known}
    if not isinstance(given, Mapping) or not given.keys() <= known:
        wrong = ", ".join(sorted(repr(key) for key in given.keys() - known)) if isinstance(given, Mapping) else type(given).__name__
        raise _wrong_client(channel, f"has {wrong:.200}", f"a dict with some of {', '.join(sorted(known))}")
    for name in ("token_url", "client_id"):
        if not isinstance(given.get(name), str) or not given[name].strip():
            raise _wrong_client(channel, f"has no {name}", "token_url and client_id, which every client has")
    _token_url(channel, given["token_url"])
    for name in ("client_secret", "scope"):
        if not isinstance(given.get(name, ""), str):
            raise _wrong_client(channel, f"has a {name} of type {type(given[name]).__name__}", "a text")
    method = given.get("token_endpoint_auth_method", "client_secret_basic" if given.get("client_secret") else "none")
    if method not in AUTH_METHODS:
        raise _wrong_client(channel, f"has the token_endpoint_auth_method {method!r:.100}", f"one of {', '.join(AUTH_METHODS)}")
    return OAuthClient(
        token_url=given["token_url"],
        client_id=given["client_id"],
        client_secret=Secret(given.get("client_secret", "")),
        token_endpoint_auth_method=method,
        scope=given.get("scope", ""),
        timeout=_client_seconds(channel, "timeout", given.get("timeout", 10.0), most=_LONGEST_TIMEOUT),
        lifetime=None if given.get("lifetime") is None else _client_seconds(channel, "lifetime", given["lifetime"], most=math.inf),
    )


def _client_seconds(channel: str, name: str, value: Any, *, most: float) -> float:
    try:
        seconds = _seconds(value)
    except ValueError:
        seconds = math.inf
    if seconds > most or not math.isfinite(seconds):
        limit = f", at most {most:g}" if math.isfinite(most) else ""
        raise _wrong_client(channel, f"has the {name} {value!r:.100}", f"a number of seconds above 0{limit}")
    return seconds


def _token_url(channel: str, url: str) -> None:
    """
    Refuse what would send our secrets over the network in clear.
    """
    expected = "https://…, without a user, a password or a fragment in it; http:// only to this machine itself"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _wrong_client(channel, "has a malformed token_url", expected) from None
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not secure or not host or "@" in parts.netloc or parts.fragment or not url.isprintable() or " " in url:
        raise _wrong_client(channel, f"has a token_url that begins with {parts.scheme!r:.20} and cannot be used", expected)


def _wrong_client(channel: Any, problem: str, expected: str) -> ConfigurationError:
    return ConfigurationError(f"The setting oauth_clients is wrong: the client of {channel!r:.100} {problem}. Expected {expected}.")


def _place(*methods: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, str):
            if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", value):
                return value
        elif not isinstance(value, type) and all(callable(getattr(value, method, None)) for method in methods):
            return value
        raise ValueError

    return check


_LEAST_PERIOD = 5.0
"""
Seconds.  What beat does more often than that is hardly what somebody wanted.
"""


def _periods(value: Any) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    periods = {_text(name): _number(seconds) for name, seconds in value.items()}
    if all(seconds == 0 or seconds >= _LEAST_PERIOD for seconds in periods.values()):
        return MappingProxyType(periods)
    raise ValueError


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError from None


def _parse_list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _parse_periods(text: str) -> dict[str, float]:
    pairs = (item.partition("=") for item in _parse_list(text))
    return {name.strip(): float(seconds) for name, _, seconds in pairs}


def _parse_numbers(text: str) -> list[float]:
    return [float(item) for item in _parse_list(text)]


SWITCH = Kind("a boolean; in the environment 1, true, yes, on, 0, false, no or off", _switch, _parse_switch)
POSITIVE = Kind("a whole number above 0", _count(1), int)
SECONDS = Kind("a number of seconds above 0", _seconds, float)
TEXT = Kind("a text that is not empty", _text)
OPTIONAL_TEXT = Kind("a text that is not empty, or None", _optional(_text))
DIRECTORY = Kind("the path of a directory", _directory)
REDIS_URL = Kind("a URL such as redis://localhost:6379/0 (also rediss, valkey, unix, sentinel, redis+cluster), or None", _redis_url)
POLICIES = Kind("a dict of channels, each with circuit_breaker and rate_limits; in the environment as JSON", policies, _parse_json)
PATTERNS = Kind("a list of task name patterns; in the environment with commas between them", _texts, _parse_list)
BUCKETS = Kind("ascending numbers, each once; in the environment with commas between them; or None", _optional(_edges), _parse_numbers)
CONNECTION_SOURCE = Kind(
    "a place such as 'proj.accounts:SOURCE', or an object with the method connections; or None", _optional(_place("connections"))
)
RECONCILIATION_SOURCE = Kind(
    "a place such as 'proj.calendar:SOURCE', or an object with the methods local and remote; or None", _optional(_place("local", "remote"))
)
PERIODS = Kind(
    "a dict from the name of a periodic task of ours to seconds, at least 5, or 0 for never; or None; "
    "in the environment as check_drift=3600,take_census=0",
    _optional(_periods),
    _parse_periods,
)

TOKEN_SOURCE = Kind(
    "a place such as 'proj.tokens:SOURCE', or an object with the methods get and put; or None", _optional(_place("get", "put"))
)
TOKEN_KEYS = Kind(
    "a list of keys that cryptography.fernet.Fernet.generate_key() made; in the environment with commas between them",
    _token_keys,
    _parse_list,
)
OAUTH_CLIENTS = Kind(
    "a dict from channel to a dict with token_url and client_id, and maybe client_secret, token_endpoint_auth_method, scope, timeout, lifetime; "
    "in the environment as JSON",
    _oauth_clients,
    _parse_json,
)


# --- the settings -----------------------------------------------------------------------------------------------------------------


def _setting(kind: Kind, help: str, *, default: Any = MISSING, secret: bool = False) -> Any:  # noqa: A002 -- the word for it.
    # Any: the dataclass field's own annotation says the type.
    metadata = {"kind": kind, "help": help, "secret": secret}
    # A dataclass takes no dict as a default, lest its instances share it.
    return (
        field(default_factory=default.copy, metadata=metadata) if isinstance(default, dict) else field(default=default, metadata=metadata)
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """
    All settings, checked; made by `load`.
    """

    metrics_dir: Path = _setting(
        DIRECTORY,
        "Where worker, beat and sidecar meet: the directory of the metric files. "
        "By default one of your user's own, under XDG_RUNTIME_DIR or the temporary directory.",
    )
    redis_url: str | None = _setting(
        REDIS_URL,
        "Redis that the cluster shares its state in. By default the broker's, when that is Redis; without any, only cluster features are off.",
        default=None,
        secret=True,
    )
    task_namespace: str = _setting(TEXT, "What the names of our own tasks begin with.", default="channel_manager")
    task_queue: str | None = _setting(
        OPTIONAL_TEXT,
        "Queue that our own tasks go to, whatever the app's routes say; a worker has to consume it. "
        "By default they go where the app's routes send channel_manager.*, else to the app's default queue.",
        default=None,
    )
    metrics: bool = _setting(SWITCH, "Record metrics.", default=True)
    logs: bool = _setting(SWITCH, "Write JSON logs with task context.", default=True)
    traces: bool = _setting(SWITCH, "Make spans, where the extra for tracing is installed.", default=True)
    errors: bool = _setting(SWITCH, "Report errors to Sentry, where its extra is installed and a DSN is set.", default=True)
    beat_schedule: bool = _setting(SWITCH, "Merge our periodic tasks into beat's schedule.", default=True)
    beat_periods: Mapping[str, float] | None = _setting(
        PERIODS, "Seconds between two runs of periodic tasks of ours, instead of their own; 0 takes one off the schedule.", default=None
    )
    label_limit: int = _setting(
        POSITIVE, "Distinct values that a label of one metric may have; what comes after them is counted as _other.", default=200
    )
    lane_limit: int = _setting(
        POSITIVE, "Numbers that a node's metric files have room for, 8 bytes each in every pool process.", default=262144
    )
    gauge_limit: int = _setting(POSITIVE, "Series of gauges that a node has room for.", default=1024)
    heartbeat_interval: float = _setting(SECONDS, "Seconds between two touches of the heartbeat file that probes look at.", default=5.0)
    ignore_tasks: tuple[str, ...] = _setting(PATTERNS, "Tasks to leave alone, as shell patterns of their names: reports.*", default=())
    runtime_buckets: tuple[float, ...] | None = _setting(
        BUCKETS, "Bucket edges of the runtime of tasks, in seconds, instead of ours.", default=None
    )
    wait_buckets: tuple[float, ...] | None = _setting(
        BUCKETS, "Bucket edges of the wait of tasks in their queue, in seconds, instead of ours.", default=None
    )
    latency_buckets: tuple[float, ...] | None = _setting(
        BUCKETS, "Bucket edges of the time from being due to being done, in seconds, instead of ours.", default=None
    )
    node_name: str | None = _setting(OPTIONAL_TEXT, "Name of this node in metrics and file names, instead of Celery's.", default=None)
    pause_retry_delay: float = _setting(
        SECONDS, "Seconds after which a task of a paused channel comes again, give or take a fifth.", default=30.0
    )
    announce_queues: bool = _setting(SWITCH, "Tell sidecars through Redis which queues this worker consumes.", default=True)
    token_source: Any = _setting(
        TOKEN_SOURCE, "Where the tokens of connections are kept. By default in Redis, encrypted with token_keys.", default=None
    )
    token_keys: tuple[str, ...] = _setting(
        TOKEN_KEYS,
        "Keys that the tokens in Redis are encrypted with. The first encrypts, all decrypt, so that keys can be changed.",
        default=(),
        secret=True,
    )
    oauth_clients: Mapping[str, OAuthClient] | None = _setting(
        OAUTH_CLIENTS, "How the tokens of each channel are refreshed.", default=None, secret=True
    )
    token_refresh_ahead: float = _setting(
        SECONDS,
        "Seconds before its expiry at which a token is refreshed; for a token that is good for less than three times that, a third of its life.",
        default=900.0,
    )
    channels: Mapping[str, ChannelPolicy] = _setting(
        POLICIES,
        "How each channel is treated, by its name, or * for all others: circuit_breaker is a preset (default, fhir, fitbit, withings), "
        "off, or a dict of thresholds and timeouts; rate_limits is '100/60s', or a list with the hours of each.",
        default={},
    )
    connection_source: Any = _setting(
        CONNECTION_SOURCE,
        "What knows all connections. By default those count that celery_obs.register_connection() was told.",
        default=None,
    )
    connection_grace: float = _setting(
        SECONDS, "Seconds for which we remember what is known of a connection that is gone.", default=7 * 86400.0
    )
    reconciliation_source: Any = _setting(
        RECONCILIATION_SOURCE, "What knows both sides of a connection's calendar. Without it no drift is looked for.", default=None
    )
    reconciliation_days: int = _setting(POSITIVE, "Days from today on that reconciliation compares.", default=365)

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
    )
    for each in fields(Settings)
)
"""
The settings as data, in the order of the reference page.
"""

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}

_OTHER_VARIABLES = re.compile(
    # Options of our commands ...
    r"CELERY_OBS_((EXPORTER|WEB|PROBE|DEMO|DOCTOR|TESTS)(_.+)?"
    r"|BROKER_URL|QUEUES|SCOPE|LOG_LEVEL|LOG_FORMAT|ENABLE_OPERATIONS|OPERATIONS_TOKEN|PROFILE"
    # ... and what Kubernetes puts into every pod when a Service is called celery-obs or celery-obs-something.
    r"|(.+_)?SERVICE_HOST|(.+_)?SERVICE_PORT(_.+)?|(.+_)?PORT(_\d+_(TCP|UDP)(_.+)?)?)"
)
"""
Environment variables with our prefix that are not settings.
"""


# --- reading ----------------------------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """
    A value that somebody set, and where.
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

        environ: The environment; ``CELERY_OBS_…`` wins over *conf*.  An empty variable counts as not set.

        overrides: Arguments of ``setup()``; they win over everything.

    Raises:
        ConfigurationError: for an unknown setting, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    for key, value, source in (*_from_dict(conf), *_from_keys(conf)):
        setting = _known(key, value, source)
        values[setting.name] = _checked(setting, value, source)
    for variable, text, source in _from_environ(environ):
        setting = _known_variable(variable, text)
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
            message = f"{key} in Celery's configuration is {_safe(str(key), inner)}. Expected a dict of settings, for example {{'metrics_dir': '/run/celery_obs'}}."
            raise ConfigurationError(message)
        for name in inner:
            yield _Found(name, inner[name], source)


def _from_keys(conf: Mapping[Any, Any]) -> Iterator[_Found]:
    for key in conf:
        if not isinstance(key, str) or _is_dict_key(key):
            continue
        # Celery keeps the namespace in the keys that it lists: CELERY_OBS_METRICS_DIR for obs_metrics_dir.
        match = re.fullmatch(r"(?:celery_)?obs_(.+)", key.lower())
        if match:
            yield _Found(match[1], conf[key], f"{key} in Celery's configuration")


def _from_environ(environ: Mapping[str, str]) -> Iterator[_Found]:
    for variable in environ:
        if not variable.startswith("CELERY_OBS_") or not environ[variable].strip():
            continue
        if variable in _BY_VARIABLE or not _OTHER_VARIABLES.fullmatch(variable):
            yield _Found(variable, environ[variable], f"environment variable {variable}")


def _known(key: Any, value: Any, source: str) -> Setting:
    setting = _BY_NAME.get(key) if isinstance(key, str) else None
    if setting is None:
        subject = f"The setting {key!r} ({source})"
        raise _unknown(subject, key, value, _BY_NAME)
    return setting


def _known_variable(variable: str, text: str) -> Setting:
    setting = _BY_VARIABLE.get(variable)
    if setting is None:
        subject = f"The environment variable {variable}"
        raise _unknown(subject, variable, text, _BY_VARIABLE)
    return setting


def _unknown(what: str, key: Any, value: Any, candidates: Mapping[str, Setting]) -> ConfigurationError:
    message = f"{what} is none that celery_obs knows; its value is {_safe(str(key), value)}."
    close = difflib.get_close_matches(str(key), candidates, n=1, cutoff=0.7)
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
    shown = "***" if setting.secret and setting.kind is not REDIS_URL else _short(value)
    detail = f" Wrong is this: {mask(str(error))}." if isinstance(error, PolicyError) else ""
    message = f"The setting {setting.name} is {shown} ({source}). Expected {setting.kind.expected}.{detail}{default}"
    return ConfigurationError(message)


# --- secrets ----------------------------------------------------------------------------------------------------------------------

_SECRET_NAME = re.compile(r"password|passwd|secret|token|dsn|credential|headers|api_?key|oauth", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w://[^:/@\s]*):\S*@")
_QUERY_PASSWORD = re.compile(r"([?&;](?:password|passwd|secret|token)=)[^&;\s'\"]*", re.IGNORECASE)
_LONGEST_SHOWN = 200


def mask(text: str) -> str:
    """
    Hide the passwords of all URLs in *text*: ``redis://:***@host``.

    Where a password is not escaped as it should be, rather too much is hidden.
    """
    return _QUERY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text))


def _safe(name: str, value: Any) -> str:
    if _SECRET_NAME.search(name):
        return "***"
    return _short(value)


def _short(value: Any) -> str:
    shown = mask(repr(value))
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"


def _shown(setting: Setting, value: Any) -> str:
    if not setting.secret or not value:
        return repr(value)
    return mask(repr(value)) if setting.kind is REDIS_URL else "***"


# --- the metrics directory --------------------------------------------------------------------------------------------------------


def default_metrics_dir(environ: Mapping[str, str]) -> Path:
    """
    Work out this user's own metrics directory: in ``XDG_RUNTIME_DIR`` where that is set and writable, else in the temporary directory.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime).absolute() / "celery_obs"
    return _shared_default(environ)


def _shared_default(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("TMPDIR") or tempfile.gettempdir()).absolute() / f"celery_obs-{os.geteuid()}"


def prepare_metrics_dir(path: Path) -> Path:
    """
    Make the metrics directory if it is missing, and make sure that this process can write there.

    The default place lies in a directory that all users share: there it is made for its owner alone (0700),
    and refused when it is somebody else's or a symbolic link.

    Raises:
        ConfigurationError: naming the directory, the user and what to do.
    """
    ours_alone = path.name == f"celery_obs-{os.geteuid()}"
    try:
        if ours_alone:
            path.mkdir(mode=0o700, exist_ok=True)
            _refuse_planted(path)
        else:
            path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise _unusable(path, "is no directory", "Remove it, or name another place.") from None
    except OSError as error:
        raise _unusable(path, f"cannot be made by uid {os.geteuid()} ({error.strerror})", "Create it before the worker starts.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(path, f"is not writable by uid {os.geteuid()}", "Create it before the worker starts.")
    return path


def _refuse_planted(path: Path) -> None:
    found = path.lstat()
    advice = "Somebody else may have put it there. Remove it, or name another place."
    if stat.S_ISLNK(found.st_mode):
        raise _unusable(path, "is a symbolic link in a directory that all users share", advice)
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(path, "is no directory", advice)
    if found.st_uid != os.geteuid():
        raise _unusable(path, f"belongs to uid {found.st_uid} and not to uid {os.geteuid()}", advice)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(path, f"is writable by others (mode {stat.S_IMODE(found.st_mode):04o})", f"Make it yours alone: chmod 700 {path}")


def _unusable(path: Path, problem: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"CELERY_OBS_METRICS_DIR is {path}, which {problem}. {advice}")


# --- the reference page -----------------------------------------------------------------------------------------------------------

_REFERENCE_HEAD = """\
<!-- Generated from celery_obs/settings.py; do not edit. -->
# Settings

A setting comes from one of four places, and the later wins:

1. the dict `celery_obs` in Celery's configuration: `app.conf.celery_obs = {"metrics_dir": "/run/celery_obs"}`;
2. a key `obs_…` in Celery's configuration: `app.conf.obs_metrics_dir = "/run/celery_obs"`, in Django's settings `CELERY_OBS_METRICS_DIR`;
3. the environment: `CELERY_OBS_METRICS_DIR=/run/celery_obs`; an empty variable counts as not set;
4. an argument: `celery_obs.setup(app, metrics_dir="/run/celery_obs")`.

An unknown setting, or a value of the wrong type, ends the start with a message that names the setting, the place and what was expected.
"""


def reference() -> str:
    """
    Write the reference page of the settings, as Markdown.
    """
    return _REFERENCE_HEAD + "".join(_section(setting) for setting in SETTINGS)


def _section(setting: Setting) -> str:
    default = "worked out at start, see below" if setting.name == "metrics_dir" else f"`{setting.default!r}`"
    lines = [
        "",
        f"## `{setting.name}`",
        "",
        *re.sub(r"\. (?=[A-Z])", ".\n", setting.help).split("\n"),
        "",
        f"- expected: {setting.kind.expected}",
        f"- default: {default.removesuffix(', see below')}",
        f"- environment: `{setting.variable}`",
    ]
    if setting.secret:
        lines.append(f"- secret: {'its password is masked wherever it is shown' if setting.kind is REDIS_URL else 'it is never shown'}")
    return "\n".join(lines) + "\n"
