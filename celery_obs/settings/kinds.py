"""
Kinds: the types that settings have, each with the words for what is expected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .checks import (
    choice,
    count,
    directory,
    edges,
    free_signal,
    levels,
    log_format,
    optional,
    parse_json,
    parse_list,
    parse_numbers,
    parse_pairs,
    parse_periods,
    parse_switch,
    periods,
    place,
    rates,
    redis_url,
    seconds,
    sentry_dsn,
    share,
    switch,
    text,
    texts,
    timezone,
    token_keys,
)


__all__ = [
    "BUCKETS",
    "CLIENT_ERRORS",
    "CONNECTION_SOURCE",
    "COUNT",
    "DIRECTORY",
    "LOG_FORMAT",
    "LOG_LEVELS",
    "LOG_SAMPLING",
    "NAMES",
    "OAUTH_CLIENTS",
    "OPTIONAL_COUNT",
    "OPTIONAL_SECONDS",
    "OPTIONAL_SWITCH",
    "OPTIONAL_TEXT",
    "PATTERNS",
    "PERIODS",
    "POLICIES",
    "POSITIVE",
    "RECONCILIATION_SOURCE",
    "REDIS_URL",
    "SECONDS",
    "SENTRY_DSN",
    "SENTRY_MODE",
    "SHARE",
    "STACK_SIGNAL",
    "SWITCH",
    "TEXT",
    "TIMEZONE",
    "TOKEN_KEYS",
    "TOKEN_SOURCE",
    "Kind",
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


def _policies(value: Any) -> Any:
    from celery_obs.areas.channels.policies import policies

    return policies(value)


def _client_errors(value: Any) -> Any:
    from celery_obs.areas.channels.failures import client_errors

    return client_errors(value)


def _oauth_clients(value: Any) -> Any:
    from .oauth import oauth_clients

    return oauth_clients(value)


SWITCH = Kind("a boolean; in the environment 1, true, yes, on, 0, false, no or off", switch, parse_switch)
OPTIONAL_SWITCH = Kind("a boolean, or None; in the environment 1, true, yes, on, 0, false, no or off", optional(switch), parse_switch)
POSITIVE = Kind("a whole number above 0", count(1), int)
OPTIONAL_COUNT = Kind("a whole number above 0, or None", optional(count(1)), int)
COUNT = Kind("a whole number, 0 or more", count(0), int)
OPTIONAL_SECONDS = Kind("a number of seconds above 0, or None", optional(seconds), float)
SECONDS = Kind("a number of seconds above 0", seconds, float)
TEXT = Kind("a text that is not empty", text)
OPTIONAL_TEXT = Kind("a text that is not empty, or None", optional(text))
TIMEZONE = Kind("a time zone such as Europe/Berlin", timezone)
DIRECTORY = Kind("the path of a directory", directory)
REDIS_URL = Kind("a URL such as redis://localhost:6379/0 (also rediss, valkey, unix, sentinel, redis+cluster), or None", redis_url)
POLICIES = Kind("a dict of channels, each with circuit_breaker and rate_limits; in the environment as JSON", _policies, parse_json)
CLIENT_ERRORS = Kind(
    "a dict from the class of an exception to a kind of failure, or to a dict of where to look; in the environment as JSON",
    _client_errors,
    parse_json,
)
PATTERNS = Kind("a list of task name patterns; in the environment with commas between them", texts, parse_list)
NAMES = Kind("a list of names; in the environment with commas between them", texts, parse_list)
LOG_FORMAT = Kind("json, console or auto", log_format)
LOG_LEVELS = Kind(
    "a dict from logger to DEBUG, INFO, WARNING, ERROR or CRITICAL; in the environment as kombu=WARNING,proj.api=DEBUG", levels, parse_pairs
)
LOG_SAMPLING = Kind(
    "a dict from task name pattern to a number from 0 to 1; in the environment as proj.ping=0.01,reports.*=0.5", rates, parse_periods
)
SENTRY_DSN = Kind("the DSN of a project, such as https://key@sentry.example.com/42, or None", sentry_dsn)
SENTRY_MODE = Kind("full or light", choice("full", "light"))
STACK_SIGNAL = Kind("SIGRTMIN+1 to SIGRTMIN+15, or SIGUSR2; or None", optional(free_signal))
SHARE = Kind("a number from 0 to 1", share, float)
BUCKETS = Kind("ascending numbers, each once; in the environment with commas between them; or None", optional(edges), parse_numbers)
CONNECTION_SOURCE = Kind(
    "a place such as 'proj.accounts:SOURCE', or an object with the method connections; or None", optional(place("connections"))
)
RECONCILIATION_SOURCE = Kind(
    "a place such as 'proj.calendar:SOURCE', or an object with the methods local and remote; or None", optional(place("local", "remote"))
)
PERIODS = Kind(
    "a dict from the name of a periodic task of ours to seconds, at least 5, or 0 for never; or None; "
    "in the environment as check_drift=3600,take_census=0",
    optional(periods),
    parse_periods,
)

TOKEN_SOURCE = Kind(
    "a place such as 'proj.tokens:SOURCE', or an object with the methods get and put; or None", optional(place("get", "put"))
)
TOKEN_KEYS = Kind(
    "a list of keys that cryptography.fernet.Fernet.generate_key() made; in the environment with commas between them",
    token_keys,
    parse_list,
)
OAUTH_CLIENTS = Kind(
    "a dict from channel to a dict with token_url (or the name of a provider) and client_id, and maybe client_secret, scope, timeout and others; "
    "in the environment as JSON",
    _oauth_clients,
    parse_json,
)
