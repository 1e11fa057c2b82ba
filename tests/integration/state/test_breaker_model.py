"""
The breaker in Redis and a model of it in Python do the same, whatever several processes do to it, in whatever order, at whatever time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis import Redis

from celery_obs.areas.channels.breakers.state import Checked, Permit
from celery_obs.areas.channels.policies import BreakerPolicy
from celery_obs.state import keys
from tests.crew import Crew, breakers_of
from tests.servers import RedisServer


pytestmark = pytest.mark.integration

CHANNEL = "airbnb"
NOW = "tests:now"
HELD_TIME = f"local now = tonumber(redis.call('GET', '{NOW}'))\n"
BEGIN = 1_800_000_000_000_000
SECOND = 1_000_000

POLICIES = st.builds(
    BreakerPolicy,
    failure_threshold=st.integers(1, 3),
    success_threshold=st.integers(1, 3),
    timeout=st.sampled_from([1.0, 5.0]),
    probe_timeout=st.sampled_from([1.0, 3.0]),
    probes=st.integers(1, 3),
    failure_rate=st.sampled_from([0.0, 0.5]),
    slow_rate=st.sampled_from([0.0, 0.3]),
    window=st.sampled_from([2.0, 10.0]),
    minimum_calls=st.integers(2, 6),
)
SOON = 0.5


@dataclass
class Model:
    """
    What a breaker is, in the fewest words; times in seconds.
    """

    policy: BreakerPolicy
    state: str = "closed"
    era: int = 0
    failures: int = 0
    successes: int = 0
    probes_from: float | None = 0.0
    forced: bool = False
    probe: int = 0
    probes: dict[int, float] = field(default_factory=dict)
    calls: list[tuple[int, bool, bool]] = field(default_factory=list)
    left_at: float | None = None
    eras: int = field(default=0, repr=False)

    def fresh(self) -> None:
        self.__dict__.update(Model(self.policy, era=self.eras + 1, eras=self.eras + 1).__dict__)

    def change(self, state: str, now: float) -> tuple[str, str, float | None] | None:
        """
        Enter *state*; return what is to be told.
        """
        before, open_for = self.state, None
        self.eras += 1
        self.era = self.eras
        self.state, self.successes, self.forced = state, 0, False
        self.probes, self.calls = {}, []
        if state == "closed":
            open_for = now - self.left_at if self.left_at is not None else 0.0
            self.left_at, self.failures = None, 0
        elif before == "closed":
            self.left_at = now
        if state == "open":
            self.probes_from = now + self.policy.timeout
        return (before, state, open_for) if before != state else None

    def check(self, now: float) -> tuple[bool, float | None, Any]:
        """
        Return whether a call may be made, else how long to wait, and what is to be told.
        """
        told = None
        if self.state == "closed":
            return True, 0.0, None
        if self.state == "open":
            if self.probes_from is None:
                return False, None, None
            if now < self.probes_from:
                return False, self.probes_from - now, None
            told = self.change("half_open", now)
        self.probes = {number: ends for number, ends in self.probes.items() if ends > now}
        if len(self.probes) >= self.policy.probes:
            return False, min(min(self.probes.values()) - now, SOON), None
        self.probe += 1
        self.probes[self.probe] = now + self.policy.probe_timeout
        return True, 0.0, told

    def rates_are_too_high(self, micro: int, outcome: str, *, slow: bool) -> bool:
        """
        Look at the calls of the last ten tenths of the window, the one that is under way among them.
        """
        policy = self.policy
        if not policy.has_window:
            return False
        tenth = micro // round(policy.window / 10 * SECOND)
        self.calls = [each for each in self.calls if each[0] > tenth - 10]
        self.calls.append((tenth, outcome == "failure", slow))
        count = len(self.calls)
        failed, late = (sum(each[at] for each in self.calls) for at in (1, 2))
        return count >= policy.minimum_calls and (0 < policy.failure_rate <= failed / count or 0 < policy.slow_rate <= late / count)

    def record(self, era: int, probe: int, outcome: str, now: float, *, micro: int, slow: bool) -> Any:
        if era != self.era:
            return None
        if self.state == "closed":
            if outcome == "none":
                return None
            self.failures = 0 if outcome == "success" else self.failures + 1
            if self.rates_are_too_high(micro, outcome, slow=slow) or self.failures >= self.policy.failure_threshold:
                return self.change("open", now)
            return None
        if self.state != "half_open" or probe not in self.probes:
            return None
        del self.probes[probe]
        if outcome == "failure" or (outcome == "success" and slow):
            self.failures += 1
            return self.change("open", now)
        if outcome == "success":
            self.successes += 1
            if self.successes >= self.policy.success_threshold:
                return self.change("closed", now)
        return None

    def force_open(self, seconds: float | None, now: float) -> Any:
        told = self.change("open", now)
        self.forced = True
        self.probes_from = None if seconds is None else now + seconds
        return told


class Given(NamedTuple):
    """
    A permit as both sides know it.
    """

    permit: Permit
    era: int
    probe: int


class Machine(RuleBasedStateMachine):
    """
    What people and processes may do to a breaker.
    """

    crew: Crew
    redis: Redis
    permits = Bundle("permits")
    who = st.integers(0, 2)

    @initialize(policy=POLICIES)
    def begin(self, policy: BreakerPolicy) -> None:
        self.redis.flushdb()
        self.now = BEGIN
        self.redis.set(NOW, self.now)
        self.model = Model(policy)
        self.policy = policy
        self.garbage = False

    @property
    def seconds(self) -> float:
        return (self.now - BEGIN) / SECOND

    def tell(self, who: int, method: str, *arguments: Any, **keywords: Any) -> Checked:
        self.pass_by(1e-6)  # No two commands come in the same microsecond.
        found: Checked = self.crew.call(who, method, *arguments, **keywords)
        # Whatever it is, it is told once that it was garbage, and then it is a breaker again, or none.
        assert found.garbage == self.garbage
        self.garbage = False
        return found

    def pass_by(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        self.redis.set(NOW, self.now)

    def same(self, told: Any, found: Checked) -> None:
        transition = found.transition
        assert (told is None) == (transition is None), f"The model tells {told}, Redis {transition}."
        if told is not None and transition is not None:
            assert told[:2] == transition[:2]
            assert (told[2] is None) == (transition.open_for is None)
            assert told[2] is None or told[2] == pytest.approx(transition.open_for)

    @rule(target=permits, who=who)
    def check(self, who: int) -> Any:
        found = self.tell(who, "check", CHANNEL, self.policy)
        allowed, wait, told = self.model.check(self.seconds)

        self.same(told, found)
        assert allowed == (found.permit is not None)
        assert (wait is None) == (found.retry_after is None)
        assert wait is None or wait == pytest.approx(found.retry_after)
        if found.permit is None:
            return None
        assert (self.model.state == "half_open") == (found.permit.probe > 0)
        return Given(found.permit, self.model.era, self.model.probe if self.model.state == "half_open" else 0)

    @rule(permit=permits, who=who, outcome=st.sampled_from(["success", "failure", "failure", "none"]), slow=st.booleans())
    def record(self, permit: Given | None, who: int, outcome: Any, *, slow: bool) -> None:
        if permit is not None:
            slow = slow and self.policy.slow_rate > 0
            found = self.tell(who, "record", permit.permit, self.policy, outcome, slow=slow)
            told = self.model.record(permit.era, permit.probe, outcome, self.seconds, micro=self.now, slow=slow)
            self.same(told, found)

    @rule(seconds=st.sampled_from([0.001, 0.5, 1.0, 3.0, 5.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.pass_by(seconds)

    @rule(who=who, seconds=st.sampled_from([None, 2.0, 30.0]))
    def force_open(self, who: int, seconds: float | None) -> None:
        found = self.tell(who, "force_open", CHANNEL, seconds=seconds)
        self.same(self.model.force_open(seconds, self.seconds), found)

    @rule(who=who)
    def force_close(self, who: int) -> None:
        found = self.tell(who, "force_close", CHANNEL)
        self.same(self.model.change("closed", self.seconds), found)

    @rule(who=who)
    def reset(self, who: int) -> None:
        found = self.tell(who, "reset", CHANNEL)
        told = self.model.change("closed", self.seconds)
        self.model.fresh()
        self.same(told, found)

    @rule()
    def delete_by_hand(self) -> None:
        self.redis.delete(keys.breaker(CHANNEL))
        self.model.fresh()
        self.garbage = False

    @rule(text=st.sampled_from(["state", "generation", "WRONGTYPE", "gone"]))
    def type_something(self, text: str) -> None:
        key = keys.breaker(CHANNEL)
        if text == "WRONGTYPE":
            self.redis.set(key, "open")
        elif text == "gone":
            self.redis.delete(key)
            self.redis.hset(key, "failures", "3")
        else:
            if self.redis.type(key) != b"hash":
                self.redis.delete(key)
            self.redis.hset(key, text, "open sesame")
        self.model.fresh()
        self.garbage = True

    @invariant()
    def looks_the_same(self) -> None:
        view = self.crew.call(0, "states", [CHANNEL])[CHANNEL]
        if self.garbage:
            return
        assert self.model.state == view.state
        assert (self.model.failures, self.model.successes) == (view.failure_count, view.success_count)
        assert self.model.forced == view.forced
        if self.model.state == "open":
            assert (self.model.probes_from is None) == (view.probe_at is None)
        if self.redis.exists(keys.breaker(CHANNEL)):
            held = self.model.state == "open" and self.model.probes_from is None
            assert held == (self.redis.ttl(keys.breaker(CHANNEL)) < 0)


@pytest.fixture(scope="module")
def crew(redis_server: RedisServer) -> Iterator[Crew]:
    with Crew(3, breakers_of, redis_server.url, now=HELD_TIME) as crew:
        yield crew


def play(crew: Crew, redis_server: RedisServer, *, examples: int, steps: int) -> None:
    with Redis.from_url(redis_server.url) as redis:
        machine = type("TheMachine", (Machine,), {"crew": crew, "redis": redis})
        run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None))


def test_three_processes_and_a_model_agree(crew: Crew, redis_server: RedisServer) -> None:
    """
    Whatever is asked, recorded, forced, deleted or typed by hand, the breaker does what one process' breaker would do.
    """
    play(crew, redis_server, examples=60, steps=40)


@pytest.mark.faults
def test_three_processes_and_a_model_agree_for_long(crew: Crew, redis_server: RedisServer) -> None:
    """
    The same, for as long as it takes to find what is rare.
    """
    play(crew, redis_server, examples=1500, steps=80)
