"""
User names and passwords: checked one after the other, off the event loop, without telling by the time it takes which users there are.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal


__all__ = ["RETRY_AFTER", "PasswordQueue", "Passwords", "Verdict"]


Verdict = Literal["right", "wrong", "busy"]
"""
What became of a check; *busy* when it was not made, because too many waited.
"""

MOST_WAITING: Final = 16
LONGEST_WAIT: Final = 4.0
"""
Seconds after which a check that did not begin is given up.
"""

RETRY_AFTER: Final = 5
"""
Seconds after which a caller that was refused is asked to come again.
"""

_LONGEST_PASSWORD: Final = 72
"""
Bytes of a password that bcrypt looks at.
"""


class Passwords:
    """
    Checks user names and passwords; a wrong one takes the same time whether there is such a user or not.

    bcrypt is slow on purpose.  What was found is remembered under a keyed hash, so that only a scraper's first request pays for it, right or wrong.

    Threads: safe for one that checks and any that ask what is remembered.
    """

    most_remembered = 1000

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._found: dict[bytes, bool] = {}

    def remembered(self, user: str, password: bytes, users: Mapping[str, bytes]) -> bool | None:
        """
        Tell at once what was found before; None for what was not checked, or has another hash by now.
        """
        return self._found.get(self.digest(user, password, users))

    def check(self, user: str, password: bytes, users: Mapping[str, bytes]) -> bool:
        """
        Find out; takes as long as the dearest hash of *users* takes, whichever name is given.
        """
        hashed = users.get(user)
        most = max(map(_cost, users.values()))
        first = most if hashed is None else _cost(hashed)
        is_right = _matches(password, hashed if hashed is not None else _dummy(first))
        # Costs are powers of two: c, then c, c + 1, … up to the highest take together as long as the highest.
        for cost in range(first, most):
            _matches(password, _dummy(cost))
        is_right = is_right and hashed is not None
        while len(self._found) >= self.most_remembered:
            self._forget_one()
        self._found[self.digest(user, password, users)] = is_right
        return is_right

    def _forget_one(self) -> None:
        """
        Forget the oldest, a wrong one if there is any: strangers must not push the scraper out.
        """
        oldest = next((digest for digest, right in self._found.items() if not right), next(iter(self._found)))
        self._found.pop(oldest, None)

    def digest(self, user: str, password: bytes, users: Mapping[str, bytes]) -> bytes:
        """
        Return what stands for these credentials as long as the user's hash is the same.
        """
        parts = (user.encode("utf-8", "surrogatepass"), users.get(user, b""), password[:_LONGEST_PASSWORD])
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), hashlib.sha256)


@dataclass(eq=False)
class _Check:
    """
    Credentials that wait for their turn.
    """

    digest: bytes
    user: str
    password: bytes
    users: Mapping[str, bytes]
    is_local: bool
    verdict: asyncio.Future[Verdict]


class PasswordQueue:
    """
    Has passwords checked one at a time, so that strangers cost one processor at most.

    What is remembered is answered at once.  Of those that wait, local ones come first, then the newest: a client that asked long ago has given up.
    When too many wait, the oldest is refused.  The same credentials, asked about by many, are checked once.

    Threads: used by the event loop only.
    """

    def __init__(self, passwords: Passwords | None = None) -> None:
        self._passwords = passwords or Passwords()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="celery-obs-auth")
        self._waiting: list[_Check] = []
        self._open: dict[bytes, asyncio.Future[Verdict]] = {}
        self._checking: asyncio.Task[None] | None = None

    async def check(self, user: str, password: bytes, users: Mapping[str, bytes], *, is_local: bool) -> Verdict:
        """
        Find out, or refuse to.
        """
        found = self._passwords.remembered(user, password, users)
        if found is not None:
            return "right" if found else "wrong"
        loop = asyncio.get_running_loop()
        digest = self._passwords.digest(user, password, users)
        verdict = self._open.get(digest)
        if verdict is None:
            verdict = self._open[digest] = loop.create_future()
            check = _Check(digest, user, password, users, is_local, verdict)
            loop.call_later(LONGEST_WAIT, self._give_up, check)
            self._wait(check)
        # Several may wait for it: one that is cancelled must not take it from the others.
        return await asyncio.shield(verdict)

    def _wait(self, check: _Check) -> None:
        self._waiting.append(check)
        self._waiting.sort(key=lambda each: each.is_local)  # Local ones last, and each kind in the order of its arrival.
        if len(self._waiting) > MOST_WAITING:
            self._give_up(self._waiting[0])
        self._next()

    def _next(self) -> None:
        if self._waiting and self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self._run(self._waiting.pop()))

    async def _run(self, check: _Check) -> None:
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._passwords.check, check.user, check.password, check.users)
        try:
            self._answer(check, "right" if await work else "wrong")
        finally:
            self._answer(check, "busy")
            self._checking = None
            self._next()

    def _give_up(self, check: _Check) -> None:
        if check in self._waiting:
            self._waiting.remove(check)
            self._answer(check, "busy")

    def _answer(self, check: _Check, verdict: Verdict) -> None:
        if not check.verdict.done():
            check.verdict.set_result(verdict)
            self._open.pop(check.digest, None)


def _matches(password: bytes, hashed: bytes) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:_LONGEST_PASSWORD], hashed)
    except ValueError:  # A NUL, to some versions.
        return False


def _cost(hashed: bytes) -> int:
    return int(hashed[4:6])


def _dummy(cost: int) -> bytes:
    """
    Make a hash of which no password is known.
    """
    return f"$2b${cost:02}$".encode() + secrets.token_hex(22)[:22].encode() + b"." * 31
