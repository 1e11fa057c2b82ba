"""
Where users say what they have: objects of theirs that settings name.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from celery_obs.exceptions import ConfigurationError


__all__ = ["named"]


def named(setting: str, value: Any, *methods: str) -> Any:
    """
    Return the object that a setting names; imported where it is a place such as ``proj.calendar:SOURCE``.

    Args:
        setting: Name of the setting, for the message.

        value: What it says: a place, or the object itself.

        methods: What the object has to have.

    Raises:
        ConfigurationError: if it is not there, or is another thing.
    """
    found = _imported(setting, value) if isinstance(value, str) else value
    if isinstance(found, type) or not all(callable(getattr(found, method, None)) for method in methods):
        what = f"the class {found.__qualname__}" if isinstance(found, type) else f"a {type(found).__name__}"
        message = f"The setting {setting} leads to {what}. Expected an object with the {_listed(methods)}."
        raise ConfigurationError(message)
    return found


def _listed(methods: tuple[str, ...]) -> str:
    return f"method{'s' if len(methods) > 1 else ''} {' and '.join(methods)}"


def _imported(setting: str, place: str) -> Any:
    module, _, path = place.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as exc:
        message = f"The setting {setting} is {place!r}, which cannot be imported ({exc}). Expected a place such as 'proj.calendar:SOURCE'."
        raise ConfigurationError(message) from exc
    return found
