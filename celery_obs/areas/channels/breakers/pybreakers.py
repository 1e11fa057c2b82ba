"""
Breakers of the library `pybreaker`, seen as ours are: for users who have them, and keep them.
"""

from __future__ import annotations

import functools
import time

from typing import TYPE_CHECKING, Any, Final

from celery_obs.areas.channels import engine as engines
from celery_obs.areas.channels.engine import Engine
from celery_obs.areas.channels.outage import Outage
from celery_obs.areas.channels.state import Channels
from celery_obs.exceptions import MissingExtraError
from celery_obs.state import keys

from .events import CircuitChanged
from .metrics import BreakerState
from .state import Breakers, BreakerView


if TYPE_CHECKING:
    from pybreaker import CircuitBreakerListener


__all__ = ["listener"]


COMPONENT: Final = "circuit_breaker"
SOURCE: Final = "pybreaker"

_SHOW_EVERY: Final = 60.0
_STATES: Final[dict[str, BreakerState]] = {"closed": "closed", "open": "open", "half-open": "half_open"}


def listener(channel: str = "") -> CircuitBreakerListener:
    """
    Return a listener that tells us what its breaker does: ``pybreaker.CircuitBreaker(listeners=[listener("airbnb")])``.

    Changes of state are counted and timed as those of our own breakers, and the state is shown beside theirs.  A breaker in the memory of
    a process is that process's own: what is shown is what one of them said last.  Rejected calls are not seen, as pybreaker calls no listener for them.

    Args:
        channel: The channel; by default the breaker's name is.

    Raises:
        MissingExtraError: if pybreaker is not installed.

    Since 0.1.
    """
    return _listener_class()(channel)  # type: ignore[no-any-return]  # A class that is made at run time.


@functools.cache
def _listener_class() -> Any:
    try:
        from pybreaker import CircuitBreakerListener
    except ImportError:
        feature = "A listener for pybreaker"
        raise MissingExtraError(feature, extra=SOURCE) from None

    class Listener(CircuitBreakerListener):
        """
        Tell the engine of this process what a breaker does.
        """

        def __init__(self, channel: str) -> None:
            self._channel = channel
            self._away = _Away()
            self._show_at = 0.0

        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            # A breaker that is used is shown, also when nothing happens to it.
            if time.monotonic() >= self._show_at:
                self._show(cb, cb.current_state)

        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            before, after = _state(getattr(old_state, "name", "")), _state(new_state.name)
            if before and after and before != after:
                engines.current().hub.emit(CircuitChanged(self._name(cb), before, after, self._away.enter(after)))
            self._show(cb, new_state.name)

        def _show(self, cb: Any, name: str) -> None:
            self._show_at = time.monotonic() + _SHOW_EVERY
            engines.current().part(_Showcase).show(self._name(cb), _state(name))

        def _name(self, cb: Any) -> str:
            return self._channel or str(cb.name or "unnamed")

    return Listener


class _Away:
    """
    How long a breaker is not closed.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def enter(self, state: BreakerState) -> float | None:
        """
        Note a change; return the seconds since it left *closed* when it is that again.
        """
        now = time.monotonic()
        since = now if self._since is None else self._since
        self._since = None if state == "closed" else since
        return now - since if state == "closed" else None


def _state(name: str) -> BreakerState | None:
    return _STATES.get(name)


class _Showcase:
    """
    Where this process shows breakers that are not ours.
    """

    def __init__(self, engine: Engine) -> None:
        self._clock = engine.clock
        self._outage = engine.part(Outage)
        self._redis = engine.redis

    def show(self, channel: str, state: BreakerState | None) -> None:
        if state is None or self._redis is None or self._outage.is_on(COMPONENT, keys.BREAKERS):
            return
        now, since = self._clock(), time.monotonic()
        view = BreakerView(state=state, opened_at=now if state == "open" else None, changed_at=now, source=SOURCE)
        try:
            Channels(self._redis, clock=self._clock).touch([channel])
            self._outage.go_on(since)
            Breakers(self._redis, clock=self._clock).show(channel, view, at=now)
            self._outage.ended(since, COMPONENT, keys.BREAKERS)
        except self._outage.errors as error:
            self._outage.began(error, COMPONENT, keys.BREAKERS)
