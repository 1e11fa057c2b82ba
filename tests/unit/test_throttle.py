"""
What goes wrong all the time is a line a minute.
"""

from __future__ import annotations

import logging
import math
import threading

from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.telemetry.traces.provider import _exporter_class
from celery_obs.testing import FakeClock
from celery_obs.throttle import LogThrottle, ThrottleFilter


def record(level: int) -> logging.LogRecord:
    return logging.LogRecord("exporter", level, __file__, 1, "Failed to export span batch", None, None)


def test_a_key_is_allowed_again_after_a_minute() -> None:
    """
    Each key by itself.
    """
    clock = FakeClock()
    throttle = LogThrottle(clock=clock)

    first = [throttle.allows("full"), throttle.allows("full"), throttle.allows("full", "again")]
    clock.advance(59.5)
    before = throttle.allows("full")
    clock.advance(0.5)

    assert ([True, False, True], False, True) == (first, before, throttle.allows("full"))


def test_a_key_is_known_once_it_was_allowed() -> None:
    """
    Who logs a traceback the first time only asks for that, before and after.
    """
    throttle = LogThrottle(clock=FakeClock())

    before = throttle.knows("disk")
    throttle.allows("disk")

    assert (False, True, False) == (before, throttle.knows("disk"), throttle.knows("memory"))


def test_what_is_to_be_logged_once_is_logged_once() -> None:
    """
    Whatever time goes by.
    """
    clock = FakeClock()
    throttle = LogThrottle(every=math.inf, clock=clock)

    first = throttle.allows("disk")
    clock.advance(1e9)

    assert (True, False) == (first, throttle.allows("disk"))


def test_keys_are_not_remembered_without_end() -> None:
    """
    Who can make the exporter log ever new things does not fill its memory; the newest are remembered.
    """
    throttle = LogThrottle(most=3, clock=lambda: 0.0)
    for number in range(10):
        assert throttle.allows(str(number))

    assert [False] * 3 == [throttle.allows(each) for each in "789"]
    assert throttle.allows("6")


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from("abcdefgh")), max_size=60), st.integers(1, 5))
def test_no_key_is_allowed_twice_within_its_time(asked: list[tuple[float, str]], most: int) -> None:
    """
    Unless so many others came meanwhile that it was forgotten.
    """
    clock = FakeClock()
    throttle = LogThrottle(every=30.0, most=most, clock=clock)
    allowed: list[tuple[float, str]] = []

    for pause, key in asked:
        clock.advance(pause)
        if throttle.allows(key):
            since = next((at for at, (_, known) in reversed(list(enumerate(allowed))) if known == key), None)
            assert since is None or clock() - allowed[since][0] >= 30.0 or len({other for _, other in allowed[since + 1 :]}) >= most
            allowed.append((clock(), key))
        else:
            assert any(known == key and clock() - at < 30.0 for at, known in allowed)


def test_threads_may_ask_at_once() -> None:
    """
    A throttle that overflows in one thread while another asks raises in neither, and stays small.
    """
    throttle = LogThrottle(most=5)
    failed: list[BaseException] = []

    def ask(name: int) -> None:
        try:
            for number in range(3000):
                throttle.allows(name, number % 50)
        except BaseException as error:  # noqa: BLE001 -- what the test is about.
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failed
    assert len(throttle._last) <= 5 + len(threads)


def test_a_collector_that_is_away_is_one_line_a_minute() -> None:
    """
    Of each level, the first record passes, and the next a minute later.
    """
    clock = FakeClock()
    throttled = ThrottleFilter(attrgetter("levelno"), LogThrottle(clock=clock))

    first = [throttled.filter(record(level)) for level in (logging.ERROR, logging.ERROR, logging.WARNING)]
    clock.advance(59)
    before = throttled.filter(record(logging.ERROR))
    clock.advance(2)

    assert ([True, False, True], False, True) == (first, before, throttled.filter(record(logging.ERROR)))


def test_the_exporter_of_otlp_is_held_back_once() -> None:
    """
    However often an exporter is made, its logger has one filter.
    """
    for _ in range(2):
        made = _exporter_class("otlp")
    assert made is not None

    filters = logging.getLogger(made.__module__).filters

    assert 1 == sum(isinstance(each, ThrottleFilter) for each in filters)
