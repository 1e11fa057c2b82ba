"""
The lease under every order of events: at no moment two hold it, and when one can, one does.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from celery_obs.state import lease as leases
from celery_obs.state.lease import Lease


PERIOD = 10.0


class Redis:
    """
    As much of a Redis as a lease uses, with a network whose delays a test sets; `test_lease` of the integration tests holds it to the real one.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.key: tuple[str, float] | None = None
        self.before = self.after = 0.0
        self.is_away = False
        self.loses_answer = False

    def time(self) -> float:
        return self.now

    def eval(self, script: str, count: int, key: str, token: str, period: int) -> object:
        if self.is_away:
            raise ConnectionError
        self.now += self.before
        held = self._held()
        answer = self._leave(held, token, period) if script == leases._LEAVE else self._take(held, token, period)
        self.now += self.after
        if self.loses_answer:
            raise TimeoutError
        return answer

    def _held(self) -> str | None:
        if self.key is not None and self.key[1] <= self.now:
            self.key = None
        return None if self.key is None else self.key[0]

    def _take(self, held: str | None, token: str, period: int) -> object:
        if held in {None, "", token}:
            self.key = (token, self.now + period / 1000)
            return [{None: b"nothing", "": b"vacant"}.get(held, b"ours"), 0, token.encode()]
        assert self.key is not None
        return [b"theirs", int((self.key[1] - self.now) * 1000), self.key[0].encode()]

    def _leave(self, held: str | None, token: str, period: int) -> int:
        if held == token:
            self.key = ("", self.now + period / 1000)
        return int(held == token)


def contender(redis: Redis) -> Lease:
    return Lease(redis, period=PERIOD, clock=redis.time)  # type: ignore[arg-type]  # As much of one as it uses.


class Contenders(RuleBasedStateMachine):
    """
    Four contenders that ask when they like, over a network that is slow, loses answers and is away.
    """

    @initialize()
    def begin(self) -> None:
        self.redis = Redis()
        self.contenders = [contender(self.redis) for _ in range(4)]

    @rule(seconds=st.floats(0.001, 2 * PERIOD))
    def wait(self, seconds: float) -> None:
        self.redis.now += seconds

    @rule(number=st.integers(0, 3))
    def ask(self, number: int) -> None:
        self.contenders[number].attempt()

    @rule(number=st.integers(0, 3), before=st.floats(0, 2 * PERIOD), after=st.floats(0, 2 * PERIOD), lost=st.booleans())
    def ask_slowly(self, number: int, before: float, after: float, lost: bool) -> None:
        self.redis.before, self.redis.after, self.redis.loses_answer = before, after, lost
        self.contenders[number].attempt()
        self.redis.before = self.redis.after = 0.0
        self.redis.loses_answer = False

    @rule(number=st.integers(0, 3))
    def ask_in_vain(self, number: int) -> None:
        self.redis.is_away = True
        self.contenders[number].attempt()
        self.redis.is_away = False

    @rule(number=st.integers(0, 3))
    def leave(self, number: int) -> None:
        self.contenders[number].stop()
        assert not self.contenders[number].holds()
        self.contenders[number] = contender(self.redis)

    @rule(number=st.integers(0, 3))
    def die(self, number: int) -> None:
        self.contenders[number] = contender(self.redis)

    @invariant()
    def at_most_one_holds_it(self) -> None:
        assert sum(each.holds() for each in self.contenders) <= 1


TestContenders = Contenders.TestCase


def run(redis: Redis, first: dict[Lease, float], *, until: float, at: float = -1.0) -> list[tuple[float, int]]:
    """
    Let contenders keep to their schedules from the moments in *first*, with Redis losing everything at *at*; return how many held the lease at each moment.
    """
    due = dict(first)
    seen = []
    while redis.now < until:
        for each, moment in list(due.items()):
            if moment <= redis.now:
                due[each] = redis.now + each.attempt()
        if at >= 0 and redis.now >= at:
            redis.key, at = None, -1.0
        seen.append((redis.now, sum(each.holds() for each in due)))
        redis.now += 0.01
    return seen


@settings(max_examples=30)
@given(at=st.floats(15, 30), offsets=st.lists(st.floats(0, 3), min_size=2, max_size=2))
def test_a_redis_that_forgot_everything_makes_no_second_holder(at: float, offsets: list[float]) -> None:
    """
    An exporter that finds the key gone waits until the one before must have noticed; within two periods there is a holder again.
    """
    redis = Redis()

    seen = run(redis, {contender(redis): offset for offset in (0.0, *offsets)}, until=60.0, at=at)

    assert max(number for _, number in seen) <= 1
    held = [moment for moment, number in seen if number]
    assert max(later - earlier for earlier, later in pairwise(held)) <= 2 * PERIOD
    assert held[-1] > 59


def test_a_dead_holder_is_followed_when_its_lease_has_run_out() -> None:
    """
    The next one asks when the lease ends, and needs not wait any longer.
    """
    redis = Redis()
    dead, heir = contender(redis), contender(redis)
    dead.attempt()

    seen = run(redis, {heir: 0.0}, until=15.0)

    assert 10.0 == pytest.approx(min(moment for moment, number in seen if number), abs=0.02)


def test_who_leaves_is_followed_at_the_next_question() -> None:
    """
    A clean exit costs a third of a period, and the two are never on at once.
    """
    redis = Redis()
    leaving, heir = contender(redis), contender(redis)
    leaving.attempt()
    heir.attempt()
    leaving.stop()

    pause = heir.attempt()

    assert not heir.holds()
    assert pause <= PERIOD / 3
    redis.now += 1.01
    assert heir.holds()


def test_who_hears_nothing_of_redis_stops_before_the_lease_does() -> None:
    """
    The time counts from before the question: a late answer makes the epoch no longer.
    """
    redis = Redis()
    holder = contender(redis)
    redis.before = redis.after = 4.0
    holder.attempt()

    assert holder.holds()
    redis.now = 8.99
    assert holder.holds()
    redis.now = 9.0
    assert not holder.holds()
    assert redis._held() == holder.name


def test_an_epoch_has_one_number_and_the_next_another() -> None:
    """
    A caller that asks twice can tell whether another held it in between.
    """
    redis = Redis()
    holder, other = contender(redis), contender(redis)
    holder.attempt()
    first = holder.epoch()
    redis.now += 3
    holder.attempt()
    assert first == holder.epoch() is not None

    redis.now += 11
    other.attempt()
    other.stop()
    holder.attempt()
    redis.now += 2

    assert holder.epoch() not in {None, first}


def test_the_holder_is_told_by_name() -> None:
    """
    Those who do not hold the lease know who does.
    """
    redis = Redis()
    holder, other = contender(redis), contender(redis)
    holder.attempt()
    other.attempt()

    assert (holder.name, holder.name) == (holder.holder(), other.holder())
