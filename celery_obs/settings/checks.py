"""
Checks: from the value that a user set to what a setting holds, ValueError where it cannot be; and from a text of the environment to something to check.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import signal

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from .secrets import Secret


__all__ = [
    "REDIS_SCHEMES",
    "choice",
    "count",
    "directory",
    "edges",
    "free_signal",
    "levels",
    "log_format",
    "number",
    "optional",
    "parse_json",
    "parse_list",
    "parse_numbers",
    "parse_pairs",
    "parse_periods",
    "parse_switch",
    "periods",
    "place",
    "rates",
    "redis_url",
    "seconds",
    "sentry_dsn",
    "share",
    "signal_number",
    "switch",
    "text",
    "texts",
    "timezone",
    "token_keys",
]


_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
REDIS_SCHEMES = (
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


def switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def parse_switch(given: str) -> bool:
    word = given.strip().lower()
    if word in _YES | _NO:
        return word in _YES
    raise ValueError


def free_signal(value: Any) -> str:
    """
    Take a signal that neither Celery nor Python has a use for.
    """
    if isinstance(value, str) and re.fullmatch(r"SIGUSR2|SIGRTMIN\+([1-9]|1[0-5])", value.strip(), re.ASCII):
        signal_number(value.strip())
        return value.strip()
    raise ValueError


def signal_number(name: str) -> int:
    """
    Return the number of a signal that `free_signal` took; ValueError where this system has none.
    """
    first, _, more = name.partition("+")
    try:
        return int(signal.Signals[first]) + int(more or 0)
    except KeyError:
        raise ValueError from None


def count(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        raise ValueError

    return check


def number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError


def seconds(value: Any) -> float:
    found = number(value)
    if found > 0:
        return found
    raise ValueError


def text(value: Any) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise ValueError


def timezone(value: Any) -> str:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 -- loaded by those who set it; an exporter is kept small.

    found = text(value)
    try:
        ZoneInfo(found)
    except (OSError, KeyError):  # ZoneInfo's own error is a KeyError; what is no name of a file is one of the others.
        raise ValueError from None
    return found


def directory(value: Any) -> Path:
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        # The sidecar may run in another directory, so that a relative path would mean another place to it.
        return Path(os.fspath(value)).expanduser().absolute()
    raise ValueError


def redis_url(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and any(value.startswith(f"{scheme}://") for scheme in REDIS_SCHEMES):
        return value
    raise ValueError


def sentry_dsn(value: Any) -> Secret | None:
    """
    Check that it is what Sentry shows as a project's DSN: ``https://key@host/project``.
    """
    if value is None:
        return None
    if isinstance(value, str):
        parts = urlsplit(value.strip())
        if parts.scheme in {"http", "https"} and parts.username and parts.hostname and parts.path.rpartition("/")[2].isdecimal():
            return Secret(value.strip())
    raise ValueError


def share(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError


def choice(*words: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise ValueError

    return check


def texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(text(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value))
    raise ValueError


def edges(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    edges = tuple(number(item) for item in value)
    if edges and list(edges) == sorted(set(edges)):
        return edges
    raise ValueError


def token_keys(value: Any) -> tuple[Secret, ...]:
    """
    Check that each is a key of Fernet's: 32 bytes in URL-safe base64.
    """
    if not isinstance(value, (str, list, tuple)):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    value = parse_list(value) if isinstance(value, str) else value
    keys = tuple(Secret(text(item).strip()) for item in value)
    for key in keys:
        if len(base64.b64decode(key, altchars=b"-_", validate=True)) != 32:  # noqa: PLR2004 -- what a key of Fernet's is.
            raise ValueError
    return keys


def place(*methods: str) -> Callable[[Any], Any]:
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
Seconds.  What beat does more often than that is hardly intended.
"""


def periods(value: Any) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    found = {text(name): number(period) for name, period in value.items()}
    if all(period == 0 or period >= _LEAST_PERIOD for period in found.values()):
        return MappingProxyType(found)
    raise ValueError


def log_format(value: Any) -> str:
    if value in {"json", "console", "auto", "text"}:
        return "console" if value == "text" else str(value)  # The sidecar's word for it; both read the same variable.
    raise ValueError


_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def levels(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    found = {text(name): text(level).upper() for name, level in value.items()}
    if all(level in _LEVELS for level in found.values()):
        return MappingProxyType(found)
    raise ValueError


def rates(value: Any) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError  # noqa: TRY004 -- one kind of error for the caller, who words it.
    found = {text(pattern): number(rate) for pattern, rate in value.items()}
    if all(0.0 <= rate <= 1.0 for rate in found.values()):
        return MappingProxyType(found)
    raise ValueError


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


def parse_json(given: str) -> Any:
    try:
        return json.loads(given)
    except RecursionError:
        raise ValueError from None


def parse_list(given: str) -> list[str]:
    return [item.strip() for item in given.split(",") if item.strip()]


def parse_periods(given: str) -> dict[str, float]:
    pairs = (item.partition("=") for item in parse_list(given))
    return {name.strip(): float(period) for name, _, period in pairs}


def parse_pairs(given: str) -> dict[str, str]:
    pairs = (item.partition("=") for item in parse_list(given))
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_numbers(given: str) -> list[float]:
    return [float(item) for item in parse_list(given)]
