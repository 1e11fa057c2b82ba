"""
The patch for Celery's signal dispatch that docs/explanation/faster-celery-signals.md offers: it applies, and the patched class does what the stock one does.
"""

from __future__ import annotations

import gc

from typing import Any

import pytest

from celery.utils.dispatch import signal as stock
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.dispatch import PATCH, patched
from tests.workers import celery_version


pytestmark = pytest.mark.skipif(celery_version() != (5, 7), reason="the patch is for Celery 5.7")

SENDERS = (None, "proj.a", "proj.b", object, ["unhashable"])


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """
    The patched module.
    """
    return patched(tmp_path_factory.mktemp("patched"))


class Receiver:
    """
    One of several, held weakly by a signal.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def hear(self, **_: object) -> int:
        return self.number


STEPS = st.lists(
    st.tuples(st.sampled_from(["connect", "disconnect", "die", "send", "empty"]), st.integers(0, 3), st.sampled_from(range(len(SENDERS)))),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_the_patched_class_answers_as_the_stock_one(fast: Any, steps: list[tuple[str, int, int]]) -> None:
    """
    Receivers are connected, taken off, die and are removed by hand in any order: each send reaches the same ones, in the same order.
    """
    answers: list[list[Any]] = []
    for module in (stock, fast):
        signal, heard = module.Signal(name="s"), []
        living = {number: Receiver(number) for number in range(4)}
        for step, number, sender in steps:
            if step == "connect":
                signal.connect(living[number].hear, sender=SENDERS[sender])
            elif step == "disconnect":
                heard.append(signal.disconnect(living[number].hear, sender=SENDERS[sender]))
            elif step == "die":
                living[number] = Receiver(number + 10)
                gc.collect(0)
            elif step == "empty":
                signal.receivers[:] = signal.receivers[1:]
            elif SENDERS[sender] != SENDERS[-1] or module is fast:
                heard.append([response for _, response in signal.send(sender=SENDERS[sender])])
            else:  # The stock class looks a sender up before it is known by its id.
                heard.append([receiver() for receiver in signal._live_receivers(SENDERS[sender])])
        answers.append(heard)

    assert answers[1] == answers[0]


def test_the_patch_is_small_and_ours_does_not_apply_it(fast: Any) -> None:
    """
    One file is changed, and the installed Celery is as it was.
    """
    patch = PATCH.read_text()
    assert [line for line in patch.splitlines() if line.startswith("+++ ")] == ["+++ b/celery/utils/dispatch/signal.py"]
    assert hasattr(fast.Signal, "_sort_receivers")
    assert not hasattr(stock.Signal, "_sort_receivers")
