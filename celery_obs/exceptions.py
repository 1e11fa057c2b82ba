"""
Every exception that celery_obs raises, as one small tree.

::

    CeleryObsError
    ├── ConfigurationError    a setting, an option or a file of ours is wrong
    ├── MissingExtraError     a feature needs a package that is not installed
    └── LayoutError           a metric file is not what it should be

They are raised at start-up only, to the person who can fix the cause.
At run time nothing of ours raises into the observed program.
"""

from __future__ import annotations


__all__ = ["CeleryObsError", "ConfigurationError", "LayoutError", "MissingExtraError"]


class CeleryObsError(Exception):
    """
    The base of all our exceptions.

    Since 0.1.
    """


class ConfigurationError(CeleryObsError):
    """
    Something that a person configured cannot work; the message says what was expected, what came and what to do.

    Since 0.1.
    """


class MissingExtraError(CeleryObsError):
    """
    A feature was asked for whose optional dependency is missing.

    Args:
        feature: What was asked for, in words.

        extra: The extra that brings it.

    Since 0.1.
    """

    def __init__(self, feature: str, *, extra: str) -> None:
        message = f"{feature} needs packages that are not installed. Install them with: pip install 'celery_obs[{extra}]'"
        super().__init__(message)
        self.extra = extra


class LayoutError(CeleryObsError):
    """
    A metric file is damaged, of another version, or not ours.

    Since 0.1.
    """
