"""
What a span says of an exception.
"""

from __future__ import annotations

import traceback

from collections.abc import Callable


__all__ = ["exception_attributes"]


def exception_attributes(exception: BaseException, redact: Callable[[str], str]) -> dict[str, str]:
    """
    Say what was raised, as the semantic conventions have it, without secrets.
    """
    kind = type(exception)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {
        "exception.type": name,
        "exception.message": redact(_text(exception)),
        "exception.stacktrace": redact(_stack(exception)),
    }


def _text(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:  # noqa: BLE001 -- a user's __str__.
        return f"<{type(exception).__name__} that cannot be shown>"


def _stack(exception: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(exception), exception, exception.__traceback__, limit=-50))
    except Exception:  # noqa: BLE001 -- a user's __str__.
        return ""
