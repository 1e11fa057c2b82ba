"""
Our schedule entries and waiting messages, taken away from wherever a scheduler or a broker keeps them.
"""

from __future__ import annotations

import contextlib
import dbm
import importlib
import importlib.util
import json
import os
import shelve

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from celery_obs.settings import Settings
from celery_obs.state.broker import of_app
from celery_obs.state.connection import connect

from . import registration as tasks
from .entries import PERIODS


__all__ = ["Names", "RedBeat", "Shelf", "WaitingMessages", "django_rows", "names_of"]


_PAGE: Final = 1000
_MOST: Final = 200_000


class Names(NamedTuple):
    """
    What is ours.

    Attributes:
        entries: Names of schedule entries.

        tasks: Names of tasks.
    """

    entries: frozenset[str]
    tasks: frozenset[str]


def names_of(settings: Settings) -> Names:
    """
    Return the names of our schedule entries and of our tasks.
    """
    specs = list(tasks.specs())
    full = {tasks.full_name(settings, spec.name) for spec in specs}
    return Names(frozenset(f"celery_obs.{name}" for name in PERIODS), frozenset(full | {f"channel_manager.{spec.name}" for spec in specs}))


def django_rows(names: Names) -> Any:
    """
    Return the rows of django-celery-beat that are ours, as a query; None where Django or its app is not loaded.

    Those that another name was given to are found by their task.
    """
    if importlib.util.find_spec("django_celery_beat") is None:
        return None
    import django  # noqa: PLC0415 -- the app's, where it is one of Django.

    from django.apps import apps  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415
    from django.db.models import Q  # noqa: PLC0415

    if not (settings.configured or os.environ.get("DJANGO_SETTINGS_MODULE")):
        return None
    if not apps.ready:
        django.setup()
    if not apps.is_installed("django_celery_beat"):
        return None
    models = importlib.import_module("django_celery_beat.models")
    return models.PeriodicTask.objects.filter(Q(name__in=names.entries) | Q(task__in=names.tasks))


class RedBeat:
    """
    RedBeat's entries.

    Args:
        app: The `celery.Celery` app.

        names: What is ours.
    """

    def __init__(self, app: Any, names: Names) -> None:
        redbeat = importlib.import_module("redbeat.schedulers")
        self._conf = redbeat.ensure_conf(app)
        self._redis = redbeat.get_redis(app)
        self._names = names

    @staticmethod
    def may_be_used(app: Any) -> bool:
        """
        Tell whether *app* may have entries there.
        """
        if importlib.util.find_spec("redbeat") is None:
            return False
        url = str(app.conf.get("redbeat_redis_url") or app.conf.broker_url or "")
        return url.partition("://")[0].startswith(("redis", "sentinel", "unix"))

    def found(self) -> list[str]:
        """
        Return the keys of our entries, those included that another name was given to.
        """
        keys = {self._conf.key_prefix + name for name in self._names.entries}
        found = {key for key in keys if self._redis.exists(key) or self._redis.zscore(self._conf.schedule_key, key) is not None}
        for key in map(str, self._redis.zrange(self._conf.schedule_key, 0, -1)):
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                if json.loads(self._redis.hget(key, "definition")).get("task") in self._names.tasks:
                    found.add(key)
        return sorted(found)

    def remove(self) -> int:
        """
        Remove them.
        """
        found = self.found()
        for key in found:
            self._redis.zrem(self._conf.schedule_key, key)
            self._redis.srem(self._conf.statics_key, key.removeprefix(self._conf.key_prefix))
            self._redis.delete(key)
        return len(found)


class Shelf:
    """
    The file in which beat's own scheduler keeps when it last fired what.

    Args:
        path: As ``beat --schedule`` has it.

        names: What is ours.
    """

    def __init__(self, path: Path, names: Names) -> None:
        self._path = path
        self._names = names

    @property
    def exists(self) -> bool:
        return bool(dbm.whichdb(str(self._path)))

    def found(self) -> list[str]:
        """
        Return the names of our entries in it; it holds pickled objects, so only the app's own file may be given.

        Raises:
            dbm.error: if it cannot be read, such as while beat has it.
        """
        if not self.exists:
            return []
        with shelve.open(str(self._path), flag="r") as store:  # noqa: S301 -- the app's own, as beat itself reads it.
            return sorted(self._ours(store.get("entries") or {}))

    def remove(self) -> int:
        """
        Take them out.
        """
        if not self.found():
            return 0
        with shelve.open(str(self._path), flag="w", writeback=True) as store:  # noqa: S301 -- as above.
            entries = store["entries"]
            ours = list(self._ours(entries))
            for name in ours:
                del entries[name]
            return len(ours)

    def _ours(self, entries: Any) -> Iterator[str]:
        for name, entry in entries.items():
            if name in self._names.entries or getattr(entry, "task", None) in self._names.tasks:
                yield name


class WaitingMessages:
    """
    Messages of our tasks that wait in a Redis for a worker.

    Args:
        app: The `celery.Celery` app.

        tasks: The names of our tasks.
    """

    def __init__(self, app: Any, tasks: Collection[str]) -> None:
        self._app = app
        self._tasks = frozenset(tasks)
        self._broker = of_app(app)

    def found(self) -> int:
        """
        Count them; 0 on a broker that shows no client what waits, where they expire with their period.
        """
        return sum(len(messages) for messages in self._all().values())

    def remove(self) -> int:
        """
        Take them out of their queues; one that a worker takes meanwhile is gone as well.
        """
        removed = 0
        with contextlib.closing(connect(self._broker)) as client:
            for key, messages in self._all().items():
                for message in messages:
                    removed += int(client.lrem(key, 1, message))  # type: ignore[arg-type]  # Bytes are as good.
        return removed

    def _all(self) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {}
        if not self._broker.is_redis:
            return found
        with contextlib.closing(connect(self._broker)) as client:
            for key in self._lists():
                for start in range(0, _MOST, _PAGE):
                    page: Any = client.lrange(key, start, start + _PAGE - 1)
                    found.setdefault(key, []).extend(message for message in page if self._is_ours(message))
                    if len(page) < _PAGE:
                        break
        return found

    def _lists(self) -> Iterator[str]:
        """
        Go through the lists of the app's queues, as the transport spells them.
        """
        with self._app.connection_for_read() as connection:
            channel = connection.default_channel
            prefix = getattr(channel, "global_keyprefix", "") or ""
            for queue in self._app.amqp.queues:
                for priority in channel.priority_steps:
                    yield f"{prefix}{queue}{channel.sep}{priority}" if priority else f"{prefix}{queue}"

    def _is_ours(self, message: bytes) -> bool:
        try:
            return json.loads(message)["headers"]["task"] in self._tasks
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
