"""
What a task of ours is, before there is a Celery app to register it with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


__all__ = ["TaskSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """
    One task of ours.

    Attributes:
        name: Without the namespace, such as ``refresh_single_token``; it is registered with the namespace, and answers to the bare name too.

        run: The body; it gets the Celery task (for its request and ``retry``) and the task's own arguments.

        time_limit: Seconds after which it is killed; the soft limit comes a little earlier.

        options: More of what ``app.task`` takes, such as ``max_retries`` or ``acks_late``.

        period: Seconds between two runs, where beat publishes it; None where others send it.

        wants_period: Whether its messages tell it how often it runs, as the argument *period*.

        is_wanted: Tells of an app's `Settings` whether beat is to publish it.
    """

    name: str
    run: Callable[..., Any]
    time_limit: float
    options: dict[str, Any]
    period: float | None = None
    wants_period: bool = False
    is_wanted: Callable[[Any], bool] = lambda _: True
