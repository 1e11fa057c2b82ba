"""
Lua on Redis, one round trip a run: what a script needs is packed once, and sent by its hash.

A script touches one key, or several that lie in one slot, so that Redis Cluster works, and takes the time from Redis, so that no client's clock matters.
"""

from __future__ import annotations

import hashlib

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_obs.compat.redis import can_exchange, exchange


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["TIME", "Call", "Command", "Prepared", "Script", "Scripts", "call", "command", "text"]


TIME: Final = "local clock = redis.call('TIME')\nlocal now = clock[1] * 1000000 + clock[2]\n"
"""
Lua that lets *now* be microseconds since the epoch.  Tests put their own in its place, which reads what they wrote.
"""


class Script:
    """
    A script.

    Args:
        lua: The text; ``KEYS[1]`` is its key, or the first of several.
    """

    def __init__(self, lua: str) -> None:
        self.lua = lua
        self.sha = hashlib.sha1(lua.encode()).hexdigest()  # noqa: S324 -- what Redis calls it.


class Call(NamedTuple):
    """
    A script with its keys and arguments, as it goes over the wire.
    """

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[str | int, ...]
    packed: bytes


class Command(NamedTuple):
    """
    A plain command, as it goes over the wire.
    """

    words: tuple[str, ...]
    packed: bytes


def command(*words: str) -> Command:
    """
    Pack a command; do it once for what is called often.
    """
    return Command(words, b"*%d\r\n" % len(words) + b"".join(map(_packed, words)))


def call(script: Script, keys: str | tuple[str, ...], *arguments: str | int) -> Call:
    """
    Pack a call; do it once for what is called often.
    """
    return Prepared(script, keys, *arguments).with_more()


class Prepared:
    """
    A call of which the first arguments are known, and packed; each time some *more* come.
    """

    def __init__(self, script: Script, keys: str | tuple[str, ...], *arguments: str | int, more: int = 0) -> None:
        self._script = script
        self._keys = (keys,) if isinstance(keys, str) else keys
        self._arguments = arguments
        words = ("EVALSHA", script.sha, str(len(self._keys)), *self._keys, *map(str, arguments))
        self._head = b"*%d\r\n" % (len(words) + more) + b"".join(map(_packed, words))

    def with_more(self, *more: str | int) -> Call:
        """
        Pack the rest.
        """
        packed = self._head + b"".join([_packed(str(word)) for word in more]) if more else self._head
        return Call(self._script, self._keys, self._arguments + more, packed)


def _packed(word: str) -> bytes:
    encoded = word.encode("utf-8", "surrogatepass")
    return b"$%d\r\n%b\r\n" % (len(encoded), encoded)


class Scripts:
    """
    Run scripts on one Redis, of whatever kind.

    Args:
        redis: A client; `run` raises what it raises.

    Threads and forks: as the client.
    """

    def __init__(self, redis: Redis) -> None:
        import redis as package

        from redis.exceptions import NoScriptError, ResponseError

        client: Any = redis  # Typed as what most of them are.
        self._redis = client
        # A Redis Cluster's client looks for the node itself, and has no pool of its own; to ask it for one would be to connect it.
        self._pool: Any = client.connection_pool if isinstance(client, package.Redis) else None
        self._is_direct = self._pool is not None and can_exchange(self._pool)
        self._named = tuple(package.VERSION[:2]) < (5, 3)
        self._no_script, self._refusal = NoScriptError, ResponseError

    @property
    def are_together(self) -> bool:
        """
        Whether all keys lie on one server, so that a script may touch several.
        """
        return self._pool is not None

    def run(self, wanted: Call) -> Any:
        """
        Run a script and return its answer, as Redis sends it.
        """
        try:
            if not self._is_direct:
                return self._redis.evalsha(wanted.script.sha, len(wanted.keys), *wanted.keys, *wanted.arguments)
            return self._ask("EVALSHA", wanted.packed)
        except self._no_script:
            return self._redis.eval(wanted.script.lua, len(wanted.keys), *wanted.keys, *wanted.arguments)

    def send(self, wanted: Command) -> Any:
        """
        Send a plain command and return its answer, as Redis sends it.
        """
        if not self._is_direct:
            return self._redis.execute_command(*wanted.words)
        return self._ask(wanted.words[0], wanted.packed)

    def _ask(self, name: str, packed: bytes) -> Any:
        # As the client does it, without what it does besides: half of a round trip's time is the client's.
        connection = self._pool.get_connection(name) if self._named else self._pool.get_connection()
        try:
            return exchange(connection, packed)
        except self._refusal:
            raise
        except BaseException:
            # The answer may still be on its way, to the next user of this connection.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)


def text(written: Any) -> str:
    """
    Return what Redis sent as text, whatever the client makes of it.
    """
    return written.decode(errors="replace") if isinstance(written, bytes) else str(written)
