"""
Hashes of many thousand fields, read whole and quickly; what lies in them may be written by any client.
"""

from __future__ import annotations

import contextlib
import json

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from .scripts import text


T = TypeVar("T")

__all__ = ["EXPORTED_FOR", "Decoder", "export", "fields", "objects", "one_object", "read"]


_READ: Final = "return cjson.encode(redis.call('hgetall', KEYS[1]))"
"""
A script: a hash as one text.  To take ten thousand fields from the wire one by one would take several times as long as everything else together.
"""


EXPORTED_FOR: Final = 300
"""
Seconds for which what is exported every quarter of a minute outlives its exporter.
"""


def read(client: Any, key: str) -> Any:
    """
    Ask a client, or a pipeline, for a hash as :func:`fields` reads it.
    """
    # Not eval(), which pipelines of a Redis Cluster refuse, though they can do it.
    return client.execute_command("EVAL", _READ, 1, key)


def export(client: Any, key: str, written: Mapping[str, str] | Mapping[bytes, str], *, keep: Collection[str]) -> None:
    """
    Write fields that are said again and again, remove those that are not in *keep*, and let all of them go some minutes after the last time.
    """
    gone = [name for name in client.hkeys(key) if text(name) not in keep]
    with client.pipeline(transaction=False) as pipe:
        if written:
            pipe.hset(key, mapping=written)
        if gone:
            pipe.hdel(key, *gone)
        pipe.expire(key, EXPORTED_FOR)
        pipe.execute()


def fields(written: bytes | str) -> dict[str, str]:
    """
    Read what :func:`read` returned; an empty hash is an empty object to it.
    """
    flat = json.loads(text(written))
    return dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}


def objects(texts: Collection[str]) -> Iterable[Any]:
    """
    Read many JSON texts at once, or one by one where one of them is none; None for those.
    """
    with contextlib.suppress(ValueError, RecursionError):
        together: list[Any] = json.loads(f"[{','.join(texts)}]")
        if len(together) == len(texts):
            return together
    return map(one_object, texts)


def one_object(written: str) -> Any:
    """
    Read a JSON text; None where it is none.
    """
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(written)
    return None


class Decoder(Generic[T]):
    """
    Reads the JSON in a hash's fields, each once for as long as it stays the same: from one look to the next, most do.

    Args:
        make: Makes something of a field's value; raises for what is none of ours, which is then left out.

    Threads: several may call; each gets what belongs to what it gave.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._last: dict[str, tuple[str, T]] = {}

    def __call__(self, written: Mapping[str, str]) -> dict[str, T]:
        """
        Return what stands in the fields, by name.
        """
        last = self._last
        found: dict[str, tuple[str, T]] = {}
        changed: dict[str, str] = {}
        for name, value in written.items():
            known = last.get(name)
            if known is not None and known[0] == value:
                found[name] = known
            else:
                changed[name] = value
        for (name, value), data in zip(changed.items(), objects(changed.values()), strict=True):
            try:
                found[name] = (value, self._make(data))
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                continue
        self._last = found
        return {name: made for name, (_, made) in found.items()}
