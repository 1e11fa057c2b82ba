"""
The context of an attempt: there while it runs, and nothing of it after.
"""

from __future__ import annotations

import contextvars

from typing import Any

import structlog

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.telemetry.logs.context import BOUND, AttemptContext, running

from .builders import started


NAMES = st.sampled_from(["a", "b", "task_id", "queue"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("bind"), NAMES, st.integers()),
        st.tuples(st.just("unbind"), NAMES, st.just(0)),
        st.tuples(st.just("clear"), NAMES, st.just(0)),
    ),
    max_size=6,
)


def take(steps: list[tuple[str, str, int]]) -> None:
    for step, name, value in steps:
        if step == "bind":
            structlog.contextvars.bind_contextvars(**{name: value})
        elif step == "unbind":
            structlog.contextvars.unbind_contextvars(name)
        else:
            structlog.contextvars.clear_contextvars()


def attempt(task_id: str = "5c6e2f0a") -> AttemptContext:
    return AttemptContext(started(task_id=task_id), correlation="req-1", worker="w1@test")


@given(before=STEPS, inside=STEPS)
def test_the_context_after_is_the_context_before(before: list[Any], inside: list[Any]) -> None:
    """
    Whatever a task binds, unbinds or clears, what was there before is there after, and nothing else.
    """

    def run() -> tuple[object, object, object]:
        take(before)
        was = structlog.contextvars.get_contextvars()
        one = attempt()
        now = structlog.contextvars.get_contextvars()
        assert now == {**was, **dict(zip(BOUND, ("shop.sell", "5c6e2f0a", "orders", 0, "req-1"), strict=True))}
        take(inside)
        one.leave()
        return was, structlog.contextvars.get_contextvars(), running()

    was, is_now, left = contextvars.Context().run(run)

    assert was == is_now
    assert left is None


@given(st.lists(st.tuples(st.integers(0, 3), STEPS), max_size=20))
def test_attempts_in_any_order_see_their_own(order: list[tuple[int, list[Any]]]) -> None:
    """
    Contexts of threads and greenlets go on in any order: each sees its own attempt, and only what that one bound.
    """
    contexts = [contextvars.Context() for _ in range(4)]
    live: dict[int, tuple[AttemptContext, dict[str, Any]]] = {}
    for which, steps in order:
        own = [(step, name, value) for step, name, value in steps if name in {"a", "b"} and step != "clear"]
        if which not in live:
            live[which] = contexts[which].run(attempt, f"id-{which}"), {}
            continue
        one, bound = live[which]
        seen = contexts[which].run(structlog.contextvars.get_contextvars)
        assert {**bound, "task_id": f"id-{which}"}.items() <= seen.items()
        assert seen.keys() - set(BOUND) == bound.keys()
        assert one is contexts[which].run(running)
        if own:
            contexts[which].run(take, own)
            for step, name, value in own:
                bound.pop(name, None) if step == "unbind" else bound.update({name: value})
        else:
            assert bound == contexts[which].run(one.leave)
            assert {} == contexts[which].run(structlog.contextvars.get_contextvars)
            del live[which]


def test_an_end_in_another_context_takes_nothing_along() -> None:
    """
    An attempt that is ended where it was not begun leaves nothing there.
    """
    one = contextvars.Context().run(attempt)

    def end() -> object:
        structlog.contextvars.bind_contextvars(task_id="other")
        one.leave()
        return structlog.contextvars.get_contextvars(), running()

    assert ({}, None) == contextvars.Context().run(end)


def test_what_cannot_be_compared_is_put_back_all_the_same() -> None:
    """
    An array in the context, whose comparison raises, does no harm.
    """

    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment] # as arrays have none.

    def run() -> object:
        structlog.contextvars.bind_contextvars(a=Array())
        one = attempt()
        structlog.contextvars.bind_contextvars(a=Array())
        one.leave()
        return set(structlog.contextvars.get_contextvars())

    assert {"a"} == contextvars.Context().run(run)
