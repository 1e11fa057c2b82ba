"""
The circuit breaker as application code uses it: a channel that fails is left alone for a while, by the whole cluster.

::

    with circuit_breaker.guard("airbnb"):
        push_prices()

Without Redis, or while it is away, every call goes through.  Nothing here raises but `CircuitOpenError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
import time

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final, TypeVar

from celery_obs.state.breakers import Breakers, BreakerView, Checked, Outcome, Permit
from celery_obs.state.channels import Channels
from celery_obs.vocabulary.circuit_breaker import CircuitChanged, CircuitRejected
from celery_obs.vocabulary.policies import policy_of

from . import engine as engines
from .engine import Engine
from .errors import CircuitOpenError, classify
from .outage import Outage


__all__ = [
    "Breaker",
    "Permit",
    "Registry",
    "allow",
    "allow_async",
    "guard",
    "guard_async",
    "guarded",
    "outcome_of",
    "record",
    "record_async",
    "registry",
]


F = TypeVar("F", bound=Callable[..., Any])

COMPONENT: Final = "circuit_breaker"
_TOUCH_EVERY: Final = 60.0
_MOST_TOUCHED: Final = 1024


# --- asking and telling -----------------------------------------------------------------------------------------------------------


def allow(channel: str) -> Permit:
    """
    Ask whether *channel* may be called now.

    Returns:
        What to give to `record` when the call is over.

    Raises:
        CircuitOpenError: if it may not.

    Since 0.1.
    """
    return _guardian().allow(channel)


def record(permit: Permit, *, ok: bool | None) -> None:
    """
    Tell what became of a call: the channel is well, or it is not; None where the call says nothing about the channel.

    Since 0.1.
    """
    _guardian().record(permit, "none" if ok is None else "success" if ok else "failure")


@contextlib.contextmanager
def guard(channel: str) -> Iterator[Permit]:
    """
    Call *channel* in a block, if its breaker lets it; how the block ends is its outcome, see `outcome_of`.

    Raises:
        CircuitOpenError: if it does not; the block does not run.

    Since 0.1.
    """
    guardian = _guardian()
    permit = guardian.allow(channel)
    try:
        yield permit
    except BaseException as error:
        guardian.record(permit, outcome_of(error))
        raise
    else:
        guardian.record(permit, "success")


def guarded(channel: str) -> Callable[[F], F]:
    """
    Decorate a function, or a coroutine function, whose every call is a call of *channel*.

    Since 0.1.
    """

    def decorate(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                async with guard_async(channel):
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with guard(channel):
                    return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]  # It takes and returns what the function does.

    return decorate


async def allow_async(channel: str) -> Permit:
    """
    Ask as `allow` does, in a thread, so that the event loop goes on.

    Since 0.1.
    """
    return await asyncio.to_thread(allow, channel)


async def record_async(permit: Permit, *, ok: bool | None) -> None:
    """
    Tell as `record` does, in a thread, and also when the task around it is being cancelled.

    Since 0.1.
    """
    if permit.generation:
        await asyncio.shield(asyncio.to_thread(record, permit, ok=ok))


@contextlib.asynccontextmanager
async def guard_async(channel: str) -> AsyncIterator[Permit]:
    """
    Call *channel* in a block as `guard` does, without blocking the event loop.

    Raises:
        CircuitOpenError: if its breaker does not let it.

    Since 0.1.
    """
    permit = await allow_async(channel)
    try:
        yield permit
    except BaseException as error:
        outcome = outcome_of(error)
        await record_async(permit, ok=None if outcome == "none" else outcome == "success")
        raise
    else:
        await record_async(permit, ok=True)


_ANSWERED: Final = frozenset({"validation", "auth"})
_SAYS_NOTHING: Final = frozenset({"rate_limit", "circuit_breaker"})


def outcome_of(error: BaseException) -> Outcome:
    """
    Tell what an error says about the channel.

    A refusal of what we sent, or of who we are, is an answer, so that the channel is well.  Too many requests, an open breaker, a block that was left
    from outside (a cancellation, a generator that was closed) and Celery's own `Ignore`, `Reject` and `Retry` without a cause say nothing.
    Everything else is a failure, also what `classify` does not know: the errors of a channel's own client library are its own.
    """
    if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
        return "none"
    # Celery is not imported here; whoever raises its exceptions has it.
    celery = sys.modules.get("celery.exceptions")
    if celery is not None and isinstance(error, celery.TaskPredicate):
        cause = getattr(error, "exc", None)
        return outcome_of(cause) if isinstance(cause, Exception) and cause is not error else "none"
    kind = classify(error)
    return "success" if kind in _ANSWERED else "none" if kind in _SAYS_NOTHING else "failure"


def _guardian() -> _Guardian:
    return engines.current().part(_Guardian)


class _Guardian:
    """
    The breakers of one process.
    """

    def __init__(self, engine: Engine) -> None:
        self._hub = engine.hub
        self._channels = engine.settings.channels
        self._outage = engine.part(Outage)
        self.breakers: Breakers | None = None
        self._known: Channels | None = None
        if engine.redis is not None:
            self.breakers = Breakers(engine.redis, clock=engine.clock)
            self._known = Channels(engine.redis, clock=engine.clock)
        self._touched: dict[str, float] = {}

    def allow(self, channel: str) -> Permit:
        policy = policy_of(self._channels, channel).breaker
        if policy is None or self.breakers is None or self._outage.is_on(COMPONENT):
            return Permit(channel)
        since = time.monotonic()
        try:
            found = self.breakers.check(channel, policy)
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT)
            return Permit(channel)
        self._outage.ended(since, COMPONENT)
        self.say(channel, found)
        self._touch(channel)
        if found.permit is not None:
            return found.permit
        self._hub.emit(CircuitRejected(channel))
        raise _refusal(channel, found.retry_after)

    def record(self, permit: Permit, outcome: Outcome) -> None:
        # An ordinary call that says nothing needs no telling; a probe does, for it makes room for the next.
        if not permit.generation or (outcome == "none" and not permit.probe):
            return
        policy = policy_of(self._channels, permit.channel).breaker
        if policy is None or self.breakers is None or self._outage.is_on(COMPONENT):
            return
        since = time.monotonic()
        try:
            found = self.breakers.record(permit, policy, outcome)
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT)
            return
        self._outage.ended(since, COMPONENT)
        self.say(permit.channel, found)

    def say(self, channel: str, found: Checked) -> None:
        """
        Tell the hub what a script did.
        """
        if found.transition is not None:
            self._hub.emit(CircuitChanged(channel, *found.transition))
        if found.garbage:
            self._hub.on_error(_garbage(channel), component=COMPONENT)

    def _touch(self, channel: str) -> None:
        now = time.monotonic()
        if now < self._touched.get(channel, 0.0) or self._known is None or self._outage.rests():
            return
        if len(self._touched) >= _MOST_TOUCHED:
            self._touched.clear()
        self._touched[channel] = now + _TOUCH_EVERY
        try:
            self._known.touch([channel])
            self._outage.ended(now, COMPONENT)
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT)


def _refusal(channel: str, retry_after: float | None) -> CircuitOpenError:
    when = "until somebody closes it" if retry_after is None else f"for another {retry_after:.1f} s"
    message = (
        f"The circuit breaker of {channel!r} is open, so the channel was not called. Expected to stay so {when}; try again after that."
    )
    return CircuitOpenError(message, channel=channel, retry_after=retry_after)


def _garbage(channel: str) -> ValueError:
    return ValueError(
        f"What lay under the breaker's key of {channel!r} was no breaker, and has been deleted: the breaker is closed. "
        "Expected that nobody writes there; to reset a breaker by hand, delete its key."
    )


# --- operating --------------------------------------------------------------------------------------------------------------------


class Breaker:
    """
    One channel's breaker, for operators.  What Redis' client raises comes through: who operates wants to know.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel

    def force_open(self, *, seconds: float | None = None, actor: str = "") -> None:
        """
        Let no call through until somebody closes it, or for so many *seconds*.
        """
        guardian, breakers = _operators()
        guardian.say(self.channel, breakers.force_open(self.channel, actor=actor, seconds=seconds))

    def force_close(self, *, actor: str = "") -> None:
        """
        Let all calls through again.
        """
        guardian, breakers = _operators()
        guardian.say(self.channel, breakers.force_close(self.channel, actor=actor))

    def reset(self) -> None:
        """
        Forget everything about it, so that it is closed.
        """
        guardian, breakers = _operators()
        guardian.say(self.channel, breakers.reset(self.channel))

    @property
    def view(self) -> BreakerView:
        """
        The breaker as it is now.
        """
        _, breakers = _operators()
        return breakers.states([self.channel])[self.channel]

    @property
    def state(self) -> str:
        """
        closed, open or half_open.
        """
        return self.view.state


class Registry:
    """
    All breakers of the cluster: those of channels that were used, or that the settings name.

    Since 0.1.
    """

    def get_breaker(self, name: str) -> Breaker:
        """
        Return the breaker of channel *name*.
        """
        return Breaker(name)

    def get_all_states(self) -> Mapping[str, Mapping[str, Any]]:
        """
        Return all breakers by channel: ``state``, ``failure_count``, ``success_count``, ``opened_at``, ``last_failure_at``, ``probe_at``,
        ``forced``, ``changed_at``, ``changed_by``.  Times are in UTC; None where there is none.
        """
        _, breakers = _operators()
        return {channel: _as_dict(view) for channel, view in breakers.states(self._names()).items()}

    def force_open(self, name: str, *, seconds: float | None = None, actor: str = "") -> None:
        """
        Let no call of channel *name* through.
        """
        Breaker(name).force_open(seconds=seconds, actor=actor)

    def force_close(self, name: str, *, actor: str = "") -> None:
        """
        Let all calls of channel *name* through.
        """
        Breaker(name).force_close(actor=actor)

    def reset_all(self) -> None:
        """
        Forget all breakers, so that all are closed.
        """
        for name in self._names():
            Breaker(name).reset()

    def _names(self) -> Iterable[str]:
        engine = engines.current()
        known = Channels(engine.redis).known() if engine.redis is not None else ()
        return sorted({*known, *engine.settings.channels} - {"*"})


registry: Final = Registry()
"""
The registry.
"""


def _operators() -> tuple[_Guardian, Breakers]:
    guardian = _guardian()
    if guardian.breakers is None:
        from celery_obs.exceptions import ConfigurationError

        message = (
            "Circuit breakers are shared in Redis, and this process has none. "
            "Expected celery_obs.setup(app) to have been called, with the setting redis_url or a broker that is Redis."
        )
        raise ConfigurationError(message)
    return guardian, guardian.breakers


def _as_dict(view: BreakerView) -> Mapping[str, Any]:
    return {
        "state": view.state,
        "failure_count": view.failure_count,
        "success_count": view.success_count,
        "opened_at": _when(view.opened_at),
        "last_failure_at": _when(view.last_failure_at),
        "probe_at": _when(view.probe_at),
        "forced": view.forced,
        "changed_at": _when(view.changed_at),
        "changed_by": view.changed_by,
    }


def _when(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):  # Somebody typed it.
        return None
