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
import threading
import time

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Final, TypeAlias, TypeVar

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.api_calls.endpoints import template_of
from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.errors import CircuitOpenError, LimitReachedError, classify
from celery_obs.areas.channels.outage import Outage
from celery_obs.areas.channels.policies import BreakerPolicy, policy_of
from celery_obs.areas.channels.rate_limits.events import RateLimitChecked
from celery_obs.areas.channels.state import Channels
from celery_obs.state import keys

from .events import CircuitChanged, CircuitRejected
from .metrics import BreakerState
from .state import Breakers, BreakerView, Checked, Outcome, Permit


__all__ = [
    "Breaker",
    "Guard",
    "GuardAsync",
    "Permit",
    "Registry",
    "allow",
    "allow_async",
    "gave_up_late",
    "guard",
    "guard_async",
    "guarded",
    "is_given_up",
    "outcome_of",
    "record",
    "record_async",
    "registry",
]


F = TypeVar("F", bound=Callable[..., Any])

COMPONENT: Final = "circuit_breaker"
_TOUCH_EVERY: Final = 60.0
_MOST_TOUCHED: Final = 1024

_OPEN_SPACING: Final = 0.01
ADVERTISED_SPACING: Final = 0.05
"""
Seconds between two tasks that come again when a breaker may be closed, or when a channel said that it may be called again.
"""


# --- asking and telling -----------------------------------------------------------------------------------------------------------


def allow(channel: str, *, endpoint: str = "", connection_id: str = "") -> Permit:
    """
    Ask whether *channel* may be called now.

    Args:
        channel: The channel to call.

        endpoint: The route's template, where each endpoint has a breaker of its own.

        connection_id: The connection, where each has a breaker of its own.

    Returns:
        What to give to `record` when the call is over.

    Raises:
        CircuitOpenError: if it may not.

        LimitReachedError: if the channel itself said not to call it yet.

    Since 0.1.
    """
    return _guardian().allow(channel, endpoint, connection_id)


def record(permit: Permit, *, ok: bool | None, duration: float | None = None) -> None:
    """
    Report the outcome of a call: the channel works, or it does not; None where the call says nothing about the channel.

    Args:
        permit: Of this call.

        ok: The outcome.

        duration: Seconds that it took; by default the time since the permit was given.

    Since 0.1.
    """
    _guardian().record(permit, "none" if ok is None else "success" if ok else "failure", duration)


def guard(channel: str, *, endpoint: str = "", connection_id: str = "") -> Guard:
    """
    Call *channel* in a block, if its breaker lets it; how the block ends is its outcome, see `outcome_of`.

    Args:
        channel, endpoint, connection_id: As of `allow`.

    Raises:
        CircuitOpenError: if it does not; the block does not run.

    Since 0.1.
    """
    return Guard(channel, endpoint, connection_id)


class Guard:
    """
    A block that calls a channel; made by `guard`.  As a decorator it is what `guarded` is.

    Threads: one for each block that is open at the same time.

    Since 0.1.
    """

    __slots__ = ("_began", "_of", "_permit")

    def __init__(self, channel: str, endpoint: str, connection_id: str) -> None:
        self._of = (channel, endpoint, connection_id)
        self._permit = Permit(channel)
        self._began = 0.0

    def __enter__(self) -> Permit:
        """
        Ask.
        """
        self._permit = _guardian().allow(*self._of)
        self._began = time.perf_counter()
        return self._permit

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """
        Tell; what the block raised goes on.
        """
        _guardian().ended(self._permit, error, time.perf_counter() - self._began)

    def __call__(self, function: F) -> F:
        """
        Decorate a function.
        """
        channel, endpoint, connection_id = self._of
        return guarded(channel, endpoint=endpoint, connection_id=connection_id)(function)


def guarded(channel: str, *, endpoint: str = "", connection_id: str = "") -> Callable[[F], F]:
    """
    Decorate a function whose every call is a call of *channel*: of generators, coroutine functions and asynchronous generators the body is the call.

    A plain function that returns an awaitable or a generator is asked for when it is called, and its call ends when that ends.

    Args:
        channel, endpoint, connection_id: As of `allow`.

    Since 0.1.
    """

    of = (channel, endpoint, connection_id)

    def decorate(function: F) -> F:
        if inspect.isasyncgenfunction(function):
            around: Callable[..., Any] = _around_async_generator
        elif inspect.iscoroutinefunction(function):
            around = _around_coroutine
        elif inspect.isgeneratorfunction(function):
            around = _around_generator
        else:
            around = _around_function
        return functools.wraps(function)(around(of, function))  # type: ignore[return-value]  # It takes and returns what the function does.

    return decorate


_Of: TypeAlias = tuple[str, str, str]
"""
What is called: channel, endpoint and connection.
"""


def _around_async_generator(of: _Of, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        async with GuardAsync(*of):
            body: Any = function(*args, **kwargs)
            try:
                item = await body.__anext__()
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 -- whatever is thrown in is the body's, as without us.
                        item = await body.athrow(error)
                    else:
                        item = await body.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await body.aclose()

    return wrapped


def _around_coroutine(of: _Of, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        async with GuardAsync(*of):
            return await function(*args, **kwargs)

    return wrapped


def _around_generator(of: _Of, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with Guard(*of):
            return (yield from function(*args, **kwargs))

    return wrapped


def _around_function(of: _Of, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return _called(of, function, args, kwargs)

    return wrapped


def _called(of: _Of, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """
    Call a plain function; what it returns may be what has yet to run.
    """
    around = Guard(*of)
    around.__enter__()
    try:
        found = function(*args, **kwargs)
        if inspect.isawaitable(found) and hasattr(found, "__aenter__"):
            with contextlib.suppress(Exception):  # Whatever it is; where it holds a coroutine, that is not to be called forgotten.
                found.close()  # type: ignore[attr-defined]  # Not all have it.
            raise TypeError(_both(function, found))  # noqa: TRY301 -- it ends the call as any error of the function does.
    except BaseException as error:
        around.__exit__(type(error), error, error.__traceback__)
        raise
    if hasattr(found, "add_done_callback"):
        found.add_done_callback(functools.partial(_done, around))
        return found
    if inspect.isawaitable(found):
        return _awaited(around, found)
    if inspect.isgenerator(found):
        return _iterated(around, found)
    around.__exit__(None, None, None)
    return found


def _both(function: Callable[..., Any], found: object) -> str:
    return (
        f"{getattr(function, '__qualname__', function)} returned a {type(found).__qualname__}, which may be awaited or entered, so it is unknown "
        "when its call ends. Expected async with circuit_breaker.guard_async(channel) around the block that uses it, instead of guarded."
    )


def _done(around: Guard, future: Any) -> None:
    """
    Tell of a future that is done; in a thread where that is an event loop's.
    """
    error: BaseException | None = asyncio.CancelledError() if future.cancelled() else future.exception()
    tell = functools.partial(around.__exit__, None if error is None else type(error), error, None)
    if asyncio.isfuture(future):
        future.get_loop().run_in_executor(None, tell)
    else:
        tell()


async def _awaited(around: Guard, body: Any) -> Any:
    try:
        found = await body
    except BaseException as error:
        await asyncio.shield(asyncio.to_thread(around.__exit__, type(error), error, None))
        raise
    await asyncio.shield(asyncio.to_thread(around.__exit__, None, None, None))
    return found


def _iterated(around: Guard, body: Any) -> Any:
    try:
        found = yield from body
    except BaseException as error:
        around.__exit__(type(error), error, error.__traceback__)
        raise
    around.__exit__(None, None, None)
    return found


async def allow_async(channel: str, *, endpoint: str = "", connection_id: str = "") -> Permit:
    """
    Ask as `allow` does, in a thread, so that the event loop goes on.  A caller that is cancelled meanwhile gives back its permit.

    Since 0.1.
    """
    asking = _Asking()
    try:
        return await asyncio.shield(asyncio.to_thread(asking.ask, channel, endpoint, connection_id))
    except asyncio.CancelledError:
        asking.give_up()
        raise


class _Asking:
    """
    A question whose asker may go away before the answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_over = False
        self._permit: Permit | None = None

    def ask(self, channel: str, endpoint: str, connection_id: str) -> Permit:
        permit = allow(channel, endpoint=endpoint, connection_id=connection_id)
        with self._lock:
            self._permit, gone = permit, self._is_over
        if gone:
            record(permit, ok=None)
        return permit

    def give_up(self) -> None:
        with self._lock:
            self._is_over, permit = True, self._permit
        if permit is not None and permit.probe:
            asyncio.get_running_loop().run_in_executor(None, functools.partial(record, permit, ok=None))


async def record_async(permit: Permit, *, ok: bool | None, duration: float | None = None) -> None:
    """
    Tell as `record` does, in a thread, and also when the task around it is being cancelled.

    Since 0.1.
    """
    if permit.generation:
        await asyncio.shield(asyncio.to_thread(record, permit, ok=ok, duration=duration))


def guard_async(channel: str, *, endpoint: str = "", connection_id: str = "") -> GuardAsync:
    """
    Call *channel* in a block as `guard` does, without blocking the event loop.

    Raises:
        CircuitOpenError: if its breaker does not let it.

    Since 0.1.
    """
    return GuardAsync(channel, endpoint, connection_id)


class GuardAsync:
    """
    A block of a coroutine that calls a channel; made by `guard_async`.  As a decorator it is what `guarded` is.

    Since 0.1.
    """

    __slots__ = ("_began", "_of", "_permit")

    def __init__(self, channel: str, endpoint: str, connection_id: str) -> None:
        self._of = (channel, endpoint, connection_id)
        self._permit = Permit(channel)
        self._began = 0.0

    async def __aenter__(self) -> Permit:
        """
        Ask.
        """
        channel, endpoint, connection_id = self._of
        self._permit = await allow_async(channel, endpoint=endpoint, connection_id=connection_id)
        self._began = time.perf_counter()
        return self._permit

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """
        Tell; what the block raised goes on.
        """
        if self._permit.generation:
            took = time.perf_counter() - self._began
            await asyncio.shield(asyncio.to_thread(_guardian().ended, self._permit, error, took))

    def __call__(self, function: F) -> F:
        """
        Decorate a function.
        """
        channel, endpoint, connection_id = self._of
        return guarded(channel, endpoint=endpoint, connection_id=connection_id)(function)


_ANSWERED: Final = frozenset({"validation", "auth"})
_SAYS_NOTHING: Final = frozenset({"rate_limit", "circuit_breaker"})
_GIVEN_UP: Final = frozenset({("asyncio", "CancelledError"), ("trio", "Cancelled"), ("billiard", "SoftTimeLimitExceeded")})


def outcome_of(error: BaseException) -> Outcome:
    """
    Tell what an error says about the channel.

    A rejection of our request or credentials is an answer, so the channel works.  Too many requests, an open breaker, a block that was left
    from outside (a cancellation, a soft time limit, a generator that was closed) and Celery's own `Ignore`, `Reject` and `Retry` without a cause say
    nothing; of the first two see `gave_up_late`.
    Everything else is a failure, also what `classify` does not know: the errors of a channel's own client library are its own.

    Since 0.1.
    """
    if not isinstance(error, Exception) or is_given_up(error):
        return "none"
    # Celery is not imported here; what raises its exceptions has imported it.
    celery = sys.modules.get("celery.exceptions")
    if celery is not None and isinstance(error, celery.TaskPredicate):
        cause = getattr(error, "exc", None)
        return outcome_of(cause) if isinstance(cause, Exception) and cause is not error else "none"
    kind = classify(error)
    return "success" if kind in _ANSWERED else "none" if kind in _SAYS_NOTHING else "failure"


def is_given_up(error: BaseException) -> bool:
    """
    Tell whether *error* ended a call from the caller's side: its task was cancelled, as ``asyncio.wait_for`` does, or reached its soft time limit.

    Since 0.1.
    """
    return any((kind.__module__.partition(".")[0], kind.__name__) in _GIVEN_UP for kind in type(error).__mro__)


def gave_up_late(channel: str, error: BaseException | None, took: float) -> bool:
    """
    Tell whether the caller of *channel* gave up so late, after *took* seconds, that the channel has failed: see `BreakerPolicy.caller_timeout`.

    Since 0.1.
    """
    return error is not None and is_given_up(error) and _guardian().is_late(channel, took)


def _guardian() -> Guardian:
    return engines.current().part(Guardian)


class Guardian:
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
        self._touched: dict[tuple[str, str], float] = {}

    def allow(self, channel: str, endpoint: str = "", connection_id: str = "") -> Permit:
        policy = policy_of(self._channels, channel).breaker
        if policy is None or self.breakers is None:
            return Permit(channel)
        permit = self._ask(channel, policy, "")
        if policy.per != "channel" and not permit.probe:
            # The channel's own is opened by hand; calls are told to these.
            scope = connection_id if policy.per == "connection" else template_of(endpoint) if endpoint else ""
            if scope:
                permit = self._ask(channel, policy, scope)
        return permit._replace(since=time.perf_counter()) if policy.slow_rate and permit.generation else permit

    def _ask(self, channel: str, policy: BreakerPolicy, scope: str) -> Permit:
        breakers = self.breakers
        assert breakers is not None  # noqa: S101 -- asked by the only caller.
        due = time.monotonic() >= self._touched.get((channel, scope), 0.0)
        found = self._outage.ask(COMPONENT, keys.breaker(channel, scope), lambda: breakers.check(channel, policy, scope, keep=due))
        if found is None:
            return Permit(channel)
        self.say(channel, found, scope)
        if due:
            self._touch(channel, scope)
        if found.permit is not None:
            return found.permit
        if found.advertised:
            self._hub.emit(RateLimitChecked(channel, "", "denied", found.retry_after or 0.0))
            raise channel_limit_reached(channel, found.retry_after or 0.0, line=f"told:{channel}")
        self._hub.emit(CircuitRejected(channel))
        raise _refusal(channel, found.retry_after, line=f"breaker:{channel}:{scope}:{found.generation}" if found.generation else "")

    def record(self, permit: Permit, outcome: Outcome, took: float | None = None) -> None:
        # An ordinary call that says nothing needs no telling; a probe does, for it makes room for the next.
        if not permit.generation or (outcome == "none" and not permit.probe):
            return
        policy = policy_of(self._channels, permit.channel).breaker
        breakers = self.breakers
        if policy is None or breakers is None:
            return
        slow = False
        if policy.slow_rate and (took is not None or permit.since):
            slow = (time.perf_counter() - permit.since if took is None else took) >= policy.slow_after
        found = self._outage.ask(
            COMPONENT, keys.breaker(permit.channel, permit.scope), lambda: breakers.record(permit, policy, outcome, slow=slow)
        )
        if found is not None:
            self.say(permit.channel, found, permit.scope)

    def ended(self, permit: Permit, error: BaseException | None, took: float) -> None:
        """
        Tell how a block ended.
        """
        outcome: Outcome = "success" if error is None else outcome_of(error)
        if outcome == "none" and error is not None and is_given_up(error) and self.is_late(permit.channel, took):
            outcome = "failure"
        self.record(permit, outcome, took)

    def is_late(self, channel: str, took: float) -> bool:
        """
        Tell whether a caller who gave up after *took* seconds waited long enough.
        """
        policy = policy_of(self._channels, channel).breaker
        return policy is not None and 0 < policy.caller_timeout <= took

    def say(self, channel: str, found: Checked, scope: str = "") -> None:
        """
        Tell the hub what a script did.
        """
        if found.transition is not None:
            self._hub.emit(CircuitChanged(channel, *found.transition))
            if scope:
                self._note(channel, scope, found.transition.to_state)
        if found.garbage:
            self._hub.on_error(_garbage(channel), component=COMPONENT)

    def _note(self, channel: str, scope: str, state: BreakerState) -> None:
        assert self.breakers is not None  # noqa: S101 -- it has just answered.
        if self._outage.rests(keys.SCOPES):
            return
        try:
            self.breakers.note(channel, scope, state)
        except self._outage.errors as error:
            # It is for those who look; the answer stands.
            self._outage.began(error, COMPONENT, keys.SCOPES)

    def tell(self, channel: str, *, left: int, seconds: float) -> None:
        """
        Note at the channel's breaker what the channel said of its limits.
        """
        breakers = self.breakers
        assert breakers is not None  # noqa: S101 -- asked by the only caller.
        garbage = self._outage.ask(COMPONENT, keys.breaker(channel), lambda: breakers.tell(channel, left=left, seconds=seconds))
        if garbage:
            self._hub.on_error(_garbage(channel), component=COMPONENT)

    def _touch(self, channel: str, scope: str) -> None:
        now = time.monotonic()
        if self._known is None or self._outage.rests(keys.CHANNELS):
            return
        if len(self._touched) >= _MOST_TOUCHED:
            self._touched.clear()
        self._touched[channel, scope] = now + _TOUCH_EVERY
        if scope:
            return
        try:
            self._known.touch([channel])
            self._outage.ended(now, COMPONENT, keys.CHANNELS)
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT, keys.CHANNELS)


def channel_limit_reached(channel: str, seconds: float, *, line: str) -> LimitReachedError:
    """
    Make the refusal of a call that the channel itself does not want yet.
    """
    message = f"{channel!r:.200} answered earlier that it has no calls left, so it was not called. Expected one in {seconds:.1f} s; try again after that."
    return LimitReachedError(message, channel=channel, retry_after=seconds, line=line, spacing=ADVERTISED_SPACING)


def _refusal(channel: str, retry_after: float | None, *, line: str) -> CircuitOpenError:
    when = "until it is closed by hand" if retry_after is None else f"for another {retry_after:.1f} s"
    message = (
        f"The circuit breaker of {channel!r} is open, so the channel was not called. Expected to stay so {when}; try again after that."
    )
    return CircuitOpenError(message, channel=channel, retry_after=retry_after, line=line, spacing=_OPEN_SPACING)


def _garbage(channel: str) -> ValueError:
    return ValueError(
        f"Deleted a malformed circuit breaker of {channel!r}: the breaker is closed. "
        "Do not write to its key; to reset a breaker by hand, delete the key."
    )


# --- operating --------------------------------------------------------------------------------------------------------------------


class Breaker:
    """
    One channel's breaker, for operators.  Errors of Redis are raised: an operator wants to know them.

    Since 0.1.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel

    def force_open(self, *, seconds: float | None = None, actor: str = "") -> None:
        """
        Let no call through until it is closed by hand, or for so many *seconds*.
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
        Reset it: its counts are cleared, and it is closed.
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
        Reset all breakers, so that all are closed.
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

Since 0.1.
"""


def _operators() -> tuple[Guardian, Breakers]:
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
    except (ValueError, OverflowError, OSError):  # Typed by hand.
        return None
