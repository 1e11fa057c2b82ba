"""
Lua on Redis, one round trip a run: what a script needs is packed once, and sent by its hash.

A script touches one key, so that Redis Cluster works, and takes the time from Redis, so that no client's clock matters.
"""

from __future__ import annotations

import hashlib

from typing import TYPE_CHECKING, Any, Final, NamedTuple


if TYPE_CHECKING:
    from redis import Redis


__all__ = ["TIME", "Call", "Prepared", "Script", "Scripts", "call", "text"]


TIME: Final = "local clock = redis.call('TIME')\nlocal now = clock[1] * 1000000 + clock[2]\n"
"""
Lua that lets *now* be microseconds since the epoch.  Tests put their own in its place, which reads what they wrote.
"""


class Script:
    """
    A script.

    Args:
        lua: The text; ``KEYS[1]`` is its one key.
    """

    def __init__(self, lua: str) -> None:
        self.lua = lua
        self.sha = hashlib.sha1(lua.encode()).hexdigest()  # noqa: S324 -- what Redis calls it.


class Call(NamedTuple):
    """
    A script with its key and arguments, as it goes over the wire.
    """

    script: Script
    key: str
    arguments: tuple[str | int, ...]
    packed: bytes


def call(script: Script, key: str, *arguments: str | int) -> Call:
    """
    Pack a call; do it once for what is called often.
    """
    return Prepared(script, key, *arguments).with_more()


class Prepared:
    """
    A call of which the first arguments are known, and packed; each time some *more* come.
    """

    def __init__(self, script: Script, key: str, *arguments: str | int, more: int = 0) -> None:
        self._script = script
        self._key = key
        self._arguments = arguments
        words = ("EVALSHA", script.sha, "1", key, *map(str, arguments))
        self._head = b"*%d\r\n" % (len(words) + more) + b"".join(map(_packed, words))

    def with_more(self, *more: str | int) -> Call:
        """
        Pack the rest.
        """
        packed = self._head + b"".join([_packed(str(word)) for word in more]) if more else self._head
        return Call(self._script, self._key, self._arguments + more, packed)


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
        self._named = tuple(package.VERSION[:2]) < (5, 3)
        self._no_script, self._refusal = NoScriptError, ResponseError

    def run(self, wanted: Call) -> Any:
        """
        Run a script and return its answer, as Redis sends it.
        """
        if self._pool is None:
            return self._by_client(wanted)
        # As the client does it, without what it does besides: half of a round trip's time is the client's.
        connection = self._pool.get_connection("EVALSHA") if self._named else self._pool.get_connection()
        try:
            connection.send_packed_command([wanted.packed])
            return connection.read_response()
        except self._no_script:
            pass
        except self._refusal:
            raise
        except BaseException:
            # The answer may still be on its way, to whoever has this connection next.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)
        return self._whole(wanted)

    def _by_client(self, wanted: Call) -> Any:
        try:
            return self._redis.evalsha(wanted.script.sha, 1, wanted.key, *wanted.arguments)
        except self._no_script:
            return self._whole(wanted)

    def _whole(self, wanted: Call) -> Any:
        return self._redis.eval(wanted.script.lua, 1, wanted.key, *wanted.arguments)


def text(written: Any) -> str:
    """
    Return what Redis sent as text, whatever the client makes of it.
    """
    return written.decode(errors="replace") if isinstance(written, bytes) else str(written)
