"""
A task that is a sync: its outcome is the run's, and while its channel is paused, or not to be called, it waits.

::

    @app.task(base=celery_obs.SyncTask, channel_type="airbnb", sync_type="availability_export", connection_argument="connection_id")
    def export_availability(connection_id):
        ...
        return celery_obs.SyncResult(updated=28, failed=2)
"""

from __future__ import annotations

import inspect
import logging
import sys

from collections.abc import Mapping, Sequence
from inspect import isawaitable
from typing import Any, Final

from celery import Task
from celery.exceptions import Ignore, Reject, Retry

from celery_obs.areas.channels import engine, presence
from celery_obs.areas.channels.errors import HeldBackError, HeldBackTooLongError, held_back, is_retryable, retry_after
from celery_obs.areas.channels.pauses.api import is_paused
from celery_obs.areas.channels.retries import RetrySchedule
from celery_obs.compat.celery import is_class_of_an_app, run_without_autoretry
from celery_obs.exceptions import ConfigurationError
from celery_obs.vocabulary.headers import HELD

from .api import UNKNOWN, SyncResult, sync_run
from .events import SyncHeldBack
from .metrics import HoldReason
from .waiting import Held, Waiting


__all__ = ["HeldBack", "SyncTask"]


log = logging.getLogger("celery_obs")

_SEEN: Final = "celery_obs_sync"
_OF: Final = "celery_obs_sync_of"
_MISSING: Final = object()


class HeldBack(Ignore):  # type: ignore[misc]
    """
    This attempt was none: the task was put back into its queue, because its channel is paused or not to be called now.

    Args:
        message: What is the matter, and when the task comes again.

        reason: The refusal, where there was one.
    """

    def __init__(self, message: str, reason: Exception | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class SyncTask(Task):  # type: ignore[misc]  # Celery has no types.
    """
    A task whose every attempt is a sync run.

    Set these as options of ``@app.task``:

    Attributes:
        channel_type: The channel.

        channel_argument: Name of the argument that holds the channel, where it differs from call to call.

        sync_type: What is synchronised; by default the name of the function.

        direction: ``outbound`` or ``inbound``.

        connection_argument: Name of the argument that holds the connection's id.

        retry_schedule: When a failed attempt is tried again; part of what `celery_obs.retry_policy` returns.

    It builds on the app's own task class, ``app.Task``: Django's ``delay_on_commit`` is there, and so is the context that Flask's tasks run in.

    A `SyncResult` that it returns tells its records, and goes on as a dictionary, to the result backend and to the next task of a chain.
    When our own circuit breaker or rate limit rejects its call, the task is put back into its queue, without a failure or a spent retry, for as
    long as the setting ``held_back_max_age`` allows.

    Called directly or by ``apply()`` it runs in its caller, and is never held back.

    Since 0.1.
    """

    abstract = True

    channel_type: str = ""
    channel_argument: str = ""
    sync_type: str = ""
    direction: str = "outbound"
    connection_argument: str = ""
    retry_schedule: RetrySchedule | None = None

    _is_wrapped = False
    """
    Whether the app's task class has a call of its own, around the task's function.
    """

    @classmethod
    def bind(cls, app: Any) -> Any:
        """
        Join the app; refuse what cannot work, when the task is made.

        Raises:
            ConfigurationError: without a channel, with the name of an argument that the function does not have, and for a coroutine function.
        """
        if cls.run is not Task.run and issubclass(app.Task, Task):
            cls._build_on(app.Task)
        bound = super().bind(app)
        if cls.run is not Task.run:
            cls._check()
            presence.sync_task_made(app)
        return bound

    @classmethod
    def _build_on(cls, base: type) -> None:
        """
        Take *base*, the app's own task class, in below what the task derives from so far.

        Its place in the task's bases is the only way: which app a class belongs to is known when it is bound to one, and not before.
        """
        theirs = base.__mro__[: base.__mro__.index(Task)]
        added = [each for each in theirs if each not in cls.__mro__]
        if not all(map(is_class_of_an_app, added)):
            try:
                cls.__bases__ = (*cls.__bases__, base)
            except TypeError as exc:  # The classes contradict each other.
                log.warning(
                    "The sync task %s cannot derive from the app's task class %s, and does not: %s", cls.name, added[-1].__qualname__, exc
                )
        between = cls.__mro__[cls.__mro__.index(SyncTask) + 1 : cls.__mro__.index(Task)]
        cls._is_wrapped = any("__call__" in each.__dict__ for each in between)

    @classmethod
    def _check(cls) -> None:
        if inspect.iscoroutinefunction(cls.run) or inspect.isasyncgenfunction(cls.run) or inspect.isgeneratorfunction(cls.run):
            kind = "a generator" if inspect.isgeneratorfunction(cls.run) else "async def"
            message = (
                f"The sync task {cls.name} is {kind}, which Celery calls and does not run: it would succeed without doing anything. "
                "Expected a plain function. Run a coroutine in it: def sync(...): return asyncio.run(sync_async(...))."
            )
            raise ConfigurationError(message)
        if bool(cls.channel_type) == bool(cls.channel_argument):
            message = (
                f"The sync task {cls.name} has {'both ' if cls.channel_type else 'neither '}channel_type and channel_argument. "
                'Expected one of them: channel_type="airbnb", or the name of the argument that holds the channel.'
            )
            raise ConfigurationError(message)
        parameters = inspect.signature(cls.run).parameters
        open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        for option in ("channel_argument", "connection_argument"):
            name = getattr(cls, option)
            if name and name not in parameters and not open_ended:
                message = (
                    f"The sync task {cls.name} has {option}={name!r}, and its function takes no such argument. "
                    f"Expected one of: {', '.join(parameters)}."
                )
                raise ConfigurationError(message)

    # -- one attempt ----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        Run the task, as a run; or put it back into its queue.
        """
        request = self.request
        if request.called_directly or _SEEN in request.__dict__:
            return super().__call__(*args, **kwargs)
        setattr(request, _SEEN, True)
        channel = self.channel_type or str(self._argument(self.channel_argument, args, kwargs) or UNKNOWN)
        connection = self._argument(self.connection_argument, args, kwargs) if self.connection_argument else ""
        connection_id = "" if connection is None else str(connection)
        if not request.is_eager and is_paused(channel):
            delay, held = engine.current().part(Waiting).paused()
            self._hold_back(request, (channel, connection_id), "paused", delay=delay, held=held)
        setattr(request, _OF, (channel, connection_id))
        self._wait_for_turn(request)
        with sync_run(channel, self.sync_name, self.direction, connection_id=connection_id) as run:
            try:
                result = self._attempt(args, kwargs)
            except (Ignore, Reject, Retry):
                raise
            except Exception as exc:
                self._wait_for(held_back(exc), request)
                raise
            if isawaitable(result):
                raise TypeError(_unfinished(self.name, result))
            if isinstance(result, SyncResult):
                run.take(result)
                return result._asdict()
        return result

    @property
    def sync_name(self) -> str:
        """
        What is synchronised.
        """
        return self.sync_type or str(self.name).rpartition(".")[2]

    def _attempt(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """
        Run the user's function, within the call of the app's task class if that has one; with a schedule of ours, in place of Celery's wrapper around it.
        """
        run: Any = self.run
        if self.retry_schedule is None:
            return super().__call__(*args, **kwargs) if self._is_wrapped else run(*args, **kwargs)
        run = run_without_autoretry(self)
        if self._is_wrapped:
            self.__dict__["run"] = run  # What the call of the app's class calls.
            run = super().__call__
        try:
            return run(*args, **kwargs)
        except (Ignore, Reject, Retry):
            raise
        except Exception as exc:
            if not self._may_retry(exc):
                raise
            raise self.retry(exc=exc) from exc

    def _may_retry(self, error: Exception) -> bool:
        if isinstance(error, tuple(getattr(self, "dont_autoretry_for", ()))):
            return False
        return is_retryable(error)

    def retry(  # noqa: PLR0917 -- Celery's signature.
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Any = None,
        throw: bool = True,  # noqa: FBT001, FBT002 -- Celery's signature.
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """
        Retry as Celery does; when the caller does not say, after what the schedule and the channel's ``Retry-After`` say.

        Where our own breaker or rate limit rejected a call, it is not a retry: the task is held back, and *countdown*, *eta* and *max_retries* do not matter.
        """
        if args is None and kwargs is None:
            self._wait_for(held_back(exc if isinstance(exc, BaseException) else sys.exc_info()[1]), self.request)
        if countdown is None and eta is None and self.retry_schedule is not None:
            asked = retry_after(exc) if isinstance(exc, BaseException) else None
            countdown = self.retry_schedule.delay(self.request.retries, after=asked)
        return super().retry(
            args=args, kwargs=kwargs, exc=exc, throw=throw, eta=eta, countdown=countdown, max_retries=max_retries, **options
        )

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _wait_for_turn(self, request: Any) -> None:
        """
        Put the task back into its queue if the line in which it waits was too long for a turn, and it is not its turn yet; do nothing else.

        Raises:
            HeldBack: when that is done.
        """
        held = Held.of(_header(request, HELD))
        if request.is_eager or not held.line or self._is_old(held):
            return
        found = engine.current().part(Waiting).before_its_turn(held)
        if found is not None:
            delay, held = found
            reason: HoldReason = "circuit_breaker" if held.line.startswith("breaker:") else "rate_limit"
            self._hold_back(request, getattr(request, _OF), reason, delay=delay, held=held)

    @staticmethod
    def _is_old(held: Held) -> bool:
        found = engine.current()
        return bool(held.since) and found.clock() - held.since > found.settings.held_back_max_age

    def _wait_for(self, refusal: HeldBackError | None, request: Any) -> None:
        """
        Put the task back into its queue if a refusal of our own ended this attempt; do nothing else.

        Raises:
            HeldBack: when that is done.

            HeldBackTooLongError: if the task was held back for too long already.
        """
        of = request.__dict__.get(_OF)
        if refusal is None or of is None or request.is_eager or request.called_directly:
            return
        if isinstance(refusal, tuple(getattr(self, "dont_autoretry_for", ()))):
            return
        found = engine.current()
        held = Held.of(_header(request, HELD))
        most = found.settings.held_back_max_age
        if self._is_old(held):
            message = (
                f"{self.name} was held back for {found.clock() - held.since:.0f} s, and the setting held_back_max_age allows {most:g} s, so that it failed. "
                f"Expected {refusal.channel or of[0]} to be callable meanwhile; the last time: {refusal}"
            )
            raise HeldBackTooLongError(message, channel=refusal.channel or of[0]) from refusal
        delay, held = found.part(Waiting).refused(refusal, held)
        reason: HoldReason = "rate_limit" if refusal.error_type == "rate_limit" else "circuit_breaker"
        self._hold_back(request, of, reason, delay=delay, held=held, refusal=refusal)

    def _hold_back(
        self,
        request: Any,
        of: tuple[str, str],
        reason: HoldReason,
        *,
        delay: float,
        held: Held,
        refusal: HeldBackError | None = None,
    ) -> None:
        """
        Publish the same task again with a delay, and end this attempt without an outcome.

        Where that cannot be published, the message is given back to the broker if it is still ours, and else the task fails, visibly: it is never lost.

        Raises:
            HeldBack: when that is done.

            Reject: with *acks_late*, when it could not be done.
        """
        headers = {key: value for key, value in (request.as_execution_options()["headers"] or {}).items() if key != HELD}
        if held.since:
            headers[HELD] = held.as_header()
        try:
            self.signature_from_request(request, countdown=delay, retries=request.retries, headers=headers).apply_async()
        except Exception as exc:
            if self.acks_late:
                raise Reject(exc, requeue=True) from exc
            raise
        channel, connection_id = of
        engine.current().hub.emit(SyncHeldBack(channel, self.sync_name, connection_id, delay, reason))
        message = f"{channel}: {_WHY[reason]}; {self.name} is retried in {delay:.1f} s."
        raise HeldBack(message, refusal) from refusal

    def _argument(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """
        Return the value of an argument of this call, or its default.
        """
        if name in kwargs:
            return kwargs[name]
        position, default = self._place(name)
        if position is not None and position < len(args):
            return args[position]
        return None if default is _MISSING else default

    def _place(self, name: str) -> tuple[int | None, Any]:
        """
        Return where an argument stands among the positional ones, and its default; looked up once.
        """
        places: dict[str, tuple[int | None, Any]] = self.__dict__.setdefault("_celery_obs_places", {})
        found = places.get(name)
        if found is None:
            found = (None, _MISSING)
            for position, each in enumerate(inspect.signature(self.run).parameters.values()):
                if each.name == name:
                    by_position = each.kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
                    found = (position if by_position else None, _MISSING if each.default is inspect.Parameter.empty else each.default)
            places[name] = found
        return found


_WHY: Final[Mapping[HoldReason, str]] = {
    "paused": "the channel is paused",
    "rate_limit": "its rate limit is exhausted",
    "circuit_breaker": "its circuit breaker is open",
}


def _header(request: Any, name: str) -> object:
    value = request.__dict__.get(name)
    nested = request.__dict__.get("headers")
    return value if value is not None or not isinstance(nested, Mapping) else nested.get(name)


def _unfinished(name: str, result: Any) -> str:
    if inspect.iscoroutine(result):
        result.close()
    return (
        f"The sync task {name} returned a {type(result).__name__} that was never run, so nothing was done. "
        "Expected a result: run it in the task, as return asyncio.run(...)."
    )
