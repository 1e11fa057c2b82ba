"""
Who listens to a signal of Celery's, and so how this process hears of its attempts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.signals import task_postrun, task_prerun

from .signals import Receivers, hear_in_tracer


if TYPE_CHECKING:
    from celery.utils.dispatch import Signal


__all__ = ["how_attempts_are_heard", "names_of_receivers"]


def names_of_receivers(signal: Signal, *, is_ours: Callable[[Any], bool]) -> list[str]:
    """
    Return the names of the functions that listen to a *signal*, but for those of ours.
    """
    found = []
    for _, receiver in list(signal.receivers):
        # Celery keeps weak references as such, and ours with a function around it that carries its identity.
        live = receiver() if type(receiver).__module__ == "weakref" else receiver
        if live is not None and not is_ours(live):
            found.append(f"{getattr(live, '__module__', '')}.{getattr(live, '__qualname__', type(live).__qualname__)}")
    return found


def how_attempts_are_heard(*, in_tracer: bool) -> dict[str, str]:
    """
    Tell what calls us at the begin and the end of an attempt in this process: Celery's ``tracer`` itself, or its ``signals``, and ``because`` of what.

    It is told as things are now: a receiver that a pool process connects later is called by signals, and we with it.

    Args:
        in_tracer: The setting ``call_in_tracer``.
    """
    if not in_tracer:
        return {"heard_by": "signals", "because": "call_in_tracer is off"}
    if not hear_in_tracer():
        return {"heard_by": "signals", "because": "the tracer of this version of Celery is not one that celery_obs knows"}
    others = sorted({name for signal in (task_prerun, task_postrun) for name in names_of_receivers(signal, is_ours=_is_ours)})
    if others:
        return {"heard_by": "signals", "because": f"{', '.join(others)} {'listens' if len(others) == 1 else 'listen'} to them, too"}
    return {"heard_by": "tracer", "because": ""}


def _is_ours(receiver: Any) -> bool:
    return isinstance(getattr(receiver, "__self__", None), Receivers)
