"""
Secrets: how they are kept out of what people read.
"""

from __future__ import annotations

import re

from typing import Any


__all__ = ["Hidden", "Secret", "mask", "safe", "short"]


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


class Hidden:
    """
    What stands in Celery's configuration in the place of a secret: ``celery report`` and ``inspect conf`` show the whole configuration,
    the latter as JSON, which has no regard for how a text wants to be shown.

    Args:
        value: The secret.

        shown: What is shown of it.
    """

    __slots__ = ("_shown", "_value")

    def __init__(self, value: Any, shown: str = "***") -> None:
        self._value = value
        self._shown = shown

    def __repr__(self) -> str:
        """
        Show that there is one.
        """
        return self._shown

    def reveal(self) -> Any:
        """
        Return the secret.
        """
        return self._value


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


def safe(name: str, value: Any) -> str:
    if _SECRET_NAME.search(name):
        return "***"
    return short(value)


def short(value: Any) -> str:
    shown = mask(repr(value))
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
