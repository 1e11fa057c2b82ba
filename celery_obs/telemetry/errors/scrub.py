"""
Scrubbing: what an error report must not take along.

A report is looked through twice.  First, as it was made, for secrets that go under a secret's name: what such a name holds in one frame may stand
in the message of the exception, too.  Then, as it would be sent, to hide those, everything else that goes under such a name or looks like a secret,
and what Celery itself adds: arguments, results and bodies of messages, in its log records and in the local variables of its own frames.
"""

from __future__ import annotations

import ast
import re

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from celery_obs.telemetry.redaction import HIDDEN, Redactor


__all__ = ["Scrubber"]


_SHORTEST: Final = 6
"""
Characters of the shortest secret that is looked for elsewhere: shorter ones are in half of all words.
"""

_LONGEST: Final = 8_192
_MOST_LEARNED: Final = 200
_MOST_LOOKED_AT: Final = 50_000
_DEEPEST: Final = 40
_WORDS: Final = frozenset(
    {"[filtered]", "password", "passwd", "secret", "bearer", "undefined", "default", "unknown", "celery", "localhost"}
)
"""
What goes under a secret's name at times and is none.
"""

_NOTHING: Final = frozenset({"None", "True", "False", "''", '""', "b''", "[]", "{}", "()", "[Filtered]", ""})
_NO_TEXT: Final = frozenset(
    {"event_id", "timestamp", "start_timestamp", "platform", "level", "type", "sdk", "modules", "_meta", "check_in_id"}
)
"""
Keys of a report that hold what Sentry needs and no user wrote.
"""

_KEYS: Final = frozenset(
    [
        "abs_path",
        "breadcrumbs",
        "category",
        "context_line",
        "contexts",
        "cookies",
        "data",
        "environment",
        "exception",
        "extra",
        "filename",
        "fingerprint",
        "formatted",
        "frames",
        "function",
        "handled",
        "headers",
        "lineno",
        "logentry",
        "logger",
        "mechanism",
        "message",
        "method",
        "module",
        "params",
        "post_context",
        "pre_context",
        "query_string",
        "release",
        "request",
        "server_name",
        "session",
        "span_id",
        "stacktrace",
        "threads",
        "timestamp",
        "trace_id",
        "transaction",
        "user",
        "values",
        "vars",
    ]
)
"""
Names that Sentry knows parts of a report by.
"""

_QUOTED: Final = re.compile(r"[brBR]{0,2}(['\"]).*\1", re.DOTALL)
_LOGIN: Final = re.compile(r"://[^:/@\s]{0,100}:([^@\s/]{1,200})@")
_OURS_AND_THEIRS: Final = (
    *("celery", "kombu", "billiard", "amqp", "sentry_sdk", "celery_obs"),
    *("redis", "valkey", "urllib", "yaml", "authlib", "oauthlib", "requests_oauthlib"),
)
"""
Packages in whose frames the local variables are arguments of tasks, results and messages, or parts of URLs, logins and files with secrets in them, under
names that do not say so.
"""


class Scrubber:
    """
    Takes the secrets out of reports.

    Args:
        redactor: Knows what a secret is.

        known: Secrets that need not be found first, such as those of our own settings.

    Threads: safe.  Forks: safe.
    """

    def __init__(self, redactor: Redactor, known: Iterable[str] = ()) -> None:
        self._redactor = redactor
        self._known = frozenset(form for secret in known if _is_worth_it(secret) for form in _forms(secret))

    def learned(self, event: Mapping[str, Any]) -> frozenset[str]:
        """
        Return the secrets that *event* has under a secret's name, in every form in which they may stand elsewhere.
        """
        found: set[str] = set()
        for secret in self._secrets({key: value for key, value in event.items() if key not in _NO_TEXT}):
            if _is_worth_it(secret):
                found.update(_forms(secret))
                if len(found) >= _MOST_LEARNED:
                    break
        return frozenset(found)

    def _secrets(self, event: Mapping[str, Any]) -> Iterator[str]:
        # A stack of our own: a report may be deeper than Python's.
        left: list[tuple[object, bool]] = [(event, False)]
        for _ in range(_MOST_LOOKED_AT):
            if not left:
                return
            value, is_secret = left.pop()
            if isinstance(value, Mapping):
                named = value.get("name") if "value" in value else None
                for key, inner in list(value.items()):
                    name = named if key == "value" and isinstance(named, str) else key
                    left.append((inner, is_secret or (isinstance(name, str) and self._redactor.is_secret(name))))
            elif isinstance(value, list | tuple | set | frozenset):
                pair = list(value)
                known = len(pair) == 2 and self._is_secret_name(pair[0])  # noqa: PLR2004 -- a header and its value.
                left.extend((inner, is_secret or (known and at == 1)) for at, inner in enumerate(pair))
            elif is_secret:
                yield from _texts(value)
            elif isinstance(value, str):
                yield from _LOGIN.findall(value[:_LONGEST])

    def _is_secret_name(self, name: object) -> bool:
        if isinstance(name, bytes):
            name = name.decode("latin-1")
        return isinstance(name, str) and self._redactor.is_secret(_bare(name))

    def scrub(self, event: dict[str, Any], learned: frozenset[str] = frozenset()) -> dict[str, Any]:
        """
        Return *event*, which is as it would be sent, without its secrets.

        Args:
            event: Made of dicts, lists and what JSON knows.  May be changed.

            learned: What `learned` returned of it.
        """
        _without_celery_records(event)
        _without_library_variables(event)
        # No pattern of them: the module of patterns would keep the last hundreds, and the secrets with them.
        secrets = tuple(sorted(self._known | learned, key=len, reverse=True))
        return {key: value if key in _NO_TEXT else self._hidden(key, value, secrets, 0) for key, value in event.items()}

    def _hidden(self, name: str, value: Any, secrets: tuple[str, ...], depth: int) -> Any:
        if name and value not in _PLAIN and self._redactor.is_secret(name) and not (isinstance(value, str) and value in _NOTHING):
            return self._redactor.under(name, value)
        if isinstance(value, str):
            return self._text(value, secrets)
        if depth >= _DEEPEST:
            return HIDDEN if isinstance(value, dict | list) else value
        if isinstance(value, dict):
            named = value.get("name") if "value" in value else None
            return {
                (key if key in _KEYS else self._text(str(key), secrets)): self._hidden(
                    named if key == "value" and isinstance(named, str) else str(key), inner, secrets, depth + 1
                )
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return self._list(value, secrets, depth)
        return value

    def _list(self, value: list[Any], secrets: tuple[str, ...], depth: int) -> list[Any]:
        if len(value) == 2 and self._is_secret_name(value[0]):  # noqa: PLR2004 -- a header and its value.
            return [value[0], self._hidden(_bare(str(value[0])), value[1], secrets, depth + 1)]
        copy: list[Any] = []
        name = ""
        for inner in value:
            copy.append(self._hidden(name, inner, secrets, depth + 1))
            # The argument of an option of a command line stands beside it.
            name = inner[2:] if isinstance(inner, str) and inner.startswith("--") and "=" not in inner else ""
        return copy

    def _text(self, text: str, secrets: tuple[str, ...]) -> str:
        for secret in secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return self._redactor.text(text)


_PLAIN: Final = (None, True, False, 0, "")


def _texts(value: object) -> Iterator[str]:
    """
    Go through the texts that the secret *value* may stand elsewhere as.
    """
    if isinstance(value, bytes):
        yield value[:_LONGEST].decode("utf-8", "replace")
    elif isinstance(value, str):
        text = _bare(str.__str__(value)[:_LONGEST])
        yield text
        scheme, _, rest = text.partition(" ")
        if rest and scheme.lower() in {"bearer", "basic", "token", "apikey", "negotiate"}:
            yield rest.strip()
        yield from _LOGIN.findall(text)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)


def _bare(text: str) -> str:
    """
    Take the quotes off what is the representation of a text, as those of local variables are.
    """
    if not _QUOTED.fullmatch(text):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text.lstrip("brBR")[1:-1]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_worth_it(secret: str) -> bool:
    return len(secret) >= _SHORTEST and secret.lower() not in _WORDS and not secret.startswith("<") and set(secret) != {"*"}


def _forms(secret: str) -> set[str]:
    """
    Return how *secret* may be written: as it is, in a representation, in a URL.
    """
    secret = secret[:_LONGEST]
    return {secret, repr(secret)[1:-1], quote(secret, safe=""), secret.replace("\\", "\\\\").replace('"', '\\"')}


def _is_celerys(name: object) -> bool:
    return isinstance(name, str) and name.partition(".")[0] in {"celery", "kombu", "multiprocessing"}


def _without_celery_records(event: dict[str, Any]) -> None:
    """
    Leave of a record that Celery logged what happened, without what was in the message.
    """
    if _is_celerys(event.get("logger")):
        entry = event.get("logentry")
        if isinstance(entry, dict):
            line = str(entry.get("formatted") or entry.get("message") or "").strip().partition("\n")[0]
            event["logentry"] = {"message": line}
        if isinstance(event.get("extra"), dict):
            event["extra"].pop("data", None)
    crumbs = event.get("breadcrumbs")
    values = crumbs.get("values") if isinstance(crumbs, dict) else crumbs
    for crumb in values if isinstance(values, list) else ():
        if isinstance(crumb, dict) and _is_celerys(crumb.get("category")):
            crumb["message"] = str(crumb.get("message") or "").strip().partition("\n")[0]
            crumb.pop("data", None)


def _without_library_variables(event: dict[str, Any]) -> None:
    """
    Leave the local variables of the application's frames, and those of the libraries that it calls, but for the ones that carry its messages.
    """
    holders = [*_values(event.get("exception")), *_values(event.get("threads")), event]
    for holder in holders:
        trace = holder.get("stacktrace") if isinstance(holder, dict) else None
        for frame in (trace.get("frames") or ()) if isinstance(trace, dict) else ():
            if isinstance(frame, dict) and str(frame.get("module") or "").partition(".")[0] in _OURS_AND_THEIRS:
                frame.pop("vars", None)


def _values(holder: object) -> list[Any]:
    values = holder.get("values") if isinstance(holder, dict) else holder
    return values if isinstance(values, list) else []
