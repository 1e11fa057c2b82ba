"""
Secrets: how they are kept out of what people read.
"""

from __future__ import annotations

from typing import Any

from celery_obs.telemetry.redaction import is_secret_name, redact


__all__ = ["Hidden", "Secret", "safe", "short"]


class Secret(str):
    """
    A text that shows only when it is printed on purpose: never in a ``repr``, and so in no traceback with its locals.
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


_LONGEST_SHOWN = 200


def safe(name: str, value: Any) -> str:
    """
    Show the value of a setting that does not exist, whose name may be the misspelt one of a secret.
    """
    if is_secret_name(name):
        return "***"
    return type(value).__name__ if isinstance(value, (dict, list, tuple, set)) else short(value)


def short(value: Any) -> str:
    shown = redact(repr(value))
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
