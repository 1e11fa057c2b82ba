"""
How passwords are checked: in which order, how many at once, and that the time tells nothing.
"""

from __future__ import annotations

import asyncio
import threading

from collections.abc import Mapping

import bcrypt
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_obs.exporter.passwords import MOST_WAITING, PasswordQueue, Passwords, Verdict


def _work_of(passwords: Passwords, user: str, password: bytes, users: Mapping[str, bytes]) -> tuple[bool, int]:
    """
    Return what a check found, and how many of bcrypt's rounds it took.
    """
    costs: list[int] = []
    real = bcrypt.checkpw

    def checked(given: bytes, hashed: bytes) -> bool:
        costs.append(int(hashed[4:6]))
        return real(given, hashed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bcrypt, "checkpw", checked)
        found = passwords.check(user, password, users)
    return found, sum(1 << cost for cost in costs)


@settings(max_examples=15, deadline=None)
@given(costs=st.lists(st.integers(4, 7), min_size=1, max_size=4))
def test_every_check_takes_as_long_as_the_dearest(costs: list[int]) -> None:
    """
    Whether there is such a user, what that user's hash costs, and whether the password is right: bcrypt has the same to do.
    """
    users = {f"user{number}": bcrypt.hashpw(b"right", bcrypt.gensalt(cost)) for number, cost in enumerate(costs)}
    tries = [(user, password) for user in (*users, "stranger") for password in (b"right", b"wrong", b"")]

    found = {each: _work_of(Passwords(), *each, users) for each in tries}

    assert {1 << max(costs)} == {work for _, work in found.values()}
    assert {(user, b"right") for user in users} == {each for each, (is_right, _) in found.items() if is_right}


def test_what_was_found_is_remembered_until_the_hash_changes() -> None:
    """
    A right password and a wrong one are known again at once; with another hash, neither is.
    """
    users = {"u": bcrypt.hashpw(b"right", bcrypt.gensalt(4))}
    changed = {"u": bcrypt.hashpw(b"right", bcrypt.gensalt(4))}
    passwords = Passwords()

    for password in (b"right", b"wrong"):
        assert passwords.remembered("u", password, users) is None
        passwords.check("u", password, users)

    assert passwords.remembered("u", b"right", users) is True
    assert passwords.remembered("u", b"wrong", users) is False
    assert passwords.remembered("u", b"right", changed) is None
    assert passwords.remembered("other", b"right", users) is None


def test_a_stranger_who_became_a_user_is_checked_again() -> None:
    """
    A refusal of before is not held against a name that the file has by now.
    """
    users = {"u": bcrypt.hashpw(b"right", bcrypt.gensalt(4))}
    passwords = Passwords()
    assert not passwords.check("new", b"right", users)

    assert passwords.remembered("new", b"right", users | {"new": users["u"]}) is None


def test_guesses_do_not_push_the_right_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is remembered is bounded, and wrong ones are forgotten first.
    """
    monkeypatch.setattr(Passwords, "most_remembered", 3)
    users = {"u": bcrypt.hashpw(b"right", bcrypt.gensalt(4))}
    passwords = Passwords()
    passwords.check("u", b"right", users)

    for number in range(5):
        passwords.check("u", b"wrong%d" % number, users)

    assert passwords.remembered("u", b"right", users)
    assert 3 == len(passwords._found)


def test_a_password_with_a_nul_or_of_any_length_is_checked_like_another() -> None:
    """
    bcrypt's own limits are nothing that a stranger could ask an error of.
    """
    users = {"u": bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4))}

    assert Passwords().check("u", b"x" * 200, users)
    assert not Passwords().check("u", b"\0", users)


class _Slow(Passwords):
    """
    Checks nothing before it is allowed to, and remembers in which order it was asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.asked: list[str] = []

    def check(self, user: str, password: bytes, users: Mapping[str, bytes]) -> bool:
        self.asked.append(user)
        assert self.go.wait(10)
        return user == "right"


def _ask_all(asked: list[tuple[str, bool]]) -> tuple[list[str], list[Verdict]]:
    """
    Ask for many users at once, each local or not; return the order in which they were checked, and what each was told.
    """
    slow = _Slow()

    async def run() -> list[Verdict]:
        queue = PasswordQueue(slow)
        loop = asyncio.get_running_loop()
        tasks = []
        for user, is_local in asked:
            tasks.append(loop.create_task(queue.check(user, b"p", {}, is_local=is_local)))
            await asyncio.sleep(0)  # In this order.
        slow.go.set()
        return list(await asyncio.gather(*tasks))

    return slow.asked, asyncio.run(run())


def test_local_ones_come_first_then_the_newest() -> None:
    """
    Who asked long ago has given up; who is on this machine does not wait for strangers.
    """
    order, verdicts = _ask_all([("first", False), ("a", False), ("local", True), ("b", False), ("right", False)])

    assert ["first", "local", "right", "b", "a"] == order
    assert ["wrong", "wrong", "wrong", "wrong", "right"] == verdicts


def test_when_too_many_wait_the_oldest_stranger_is_refused() -> None:
    """
    There is an end to how many wait; local ones are not refused for strangers.
    """
    asked = [("first", False), ("local", True), *((str(number), False) for number in range(MOST_WAITING + 3)), ("right", False)]

    order, verdicts = _ask_all(asked)

    told = dict(zip((user for user, _ in asked), verdicts, strict=True))
    assert ["0", "1", "2", "3", "4"] == [user for user, verdict in told.items() if verdict == "busy"]
    assert ("wrong", "right") == (told["local"], told["right"])
    assert MOST_WAITING + 1 == len(order)


def test_the_same_credentials_are_checked_once() -> None:
    """
    A hundred clients with one wrong password cost what one costs.
    """
    order, verdicts = _ask_all([("u", False)] * 100)

    assert ["u"] == order
    assert ["wrong"] * 100 == verdicts


def test_one_who_leaves_takes_the_answer_from_nobody_else() -> None:
    """
    Of two that wait for the same credentials, one is cancelled; the other is told.
    """

    async def run() -> Verdict:
        slow = _Slow()
        queue = PasswordQueue(slow)
        leaving, staying = (asyncio.ensure_future(queue.check("right", b"p", {}, is_local=True)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        slow.go.set()
        return await staying

    assert "right" == asyncio.run(run())


def test_who_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A check that did not begin in time is given up, so that each caller gets an answer.
    """
    monkeypatch.setattr("celery_obs.exporter.passwords.LONGEST_WAIT", 0.01)

    async def run() -> tuple[Verdict, Verdict]:
        slow = _Slow()
        queue = PasswordQueue(slow)
        first, second = (asyncio.ensure_future(queue.check(user, b"p", {}, is_local=True)) for user in ("right", "late"))
        late = await second
        slow.go.set()
        return await first, late

    assert ("right", "busy") == asyncio.run(run())
