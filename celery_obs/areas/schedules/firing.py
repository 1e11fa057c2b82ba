"""
Firing: which schedule entry the message that is being published belongs to.

Beat enters a context around the scheduler's own publish, and the receiver of Celery's publish signal stamps the message in it.
No entry is touched or copied, so that it does not matter what kind of object a scheduler makes its entries of.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from celery_obs.vocabulary import headers


__all__ = ["Firing", "current", "firing", "published", "stamp"]


class Firing:
    """
    One firing of an entry.

    Args:
        entry: Its name.

        task: The task that it publishes.

    Attributes:
        stamps: Headers that its message gets.

        is_seen: Whether the publish itself was seen, by the method nearest to it; the methods around that one have nothing to add.

        message: The id of its message; empty until that is about to be published.

        is_published: Whether the broker took the message.
    """

    def __init__(self, entry: str, task: str) -> None:
        self.entry = entry
        self.task = task
        self.stamps: dict[str, Any] = {headers.ENTRY: entry}
        self.is_seen = False
        self.message = ""
        self.is_published = False


_current: Final[ContextVar[Firing | None]] = ContextVar("celery_obs_firing", default=None)


def current() -> Firing | None:
    """
    Return the firing that this thread is in, if any.
    """
    return _current.get()


@contextmanager
def firing(one: Firing) -> Iterator[None]:
    """
    Have what this thread publishes belong to *one*.
    """
    token = _current.set(one)
    try:
        yield
    finally:
        _current.reset(token)


def stamp(carrier: MutableMapping[str, Any]) -> None:
    """
    Write on a message that is about to be published which entry it belongs to.

    Messages of other tasks, which a task's own ``apply_async`` may send on the way, and those of a task that beat runs itself (eager mode) are not the entry's.

    Args:
        carrier: Its headers, as the signal ``before_task_publish`` has them.
    """
    one = _current.get()
    if one is not None and carrier.get("task", one.task) == one.task and not carrier.get("parent_id"):
        carrier.update(one.stamps)
        one.message = str(carrier.get("id") or "")


def published(carrier: Any) -> None:
    """
    Note that the broker took the message of the firing that this thread is in.

    Args:
        carrier: Its headers, as the signal ``after_task_publish`` has them; of a message of protocol 1 they are in its body, too.
    """
    one = _current.get()
    if one is not None and isinstance(carrier, dict) and carrier.get(headers.ENTRY) == one.entry:
        one.is_published = True
