"""
The door: who is let in, for how long, and who gives way when there is no room.

uvicorn has a deadline for idle connections only, and refuses new ones when there are too many, the scraper's included.
asyncio accepts without end, and writes a line for each connection that finds no descriptor.  Both is done here instead, around uvicorn's protocol;
what we assume of that stands in `celery_obs.compat.uvicorn`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import struct
import time

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import h11
import uvicorn

from uvicorn.protocols.http.h11_impl import H11Protocol

from celery_obs.throttle import LogThrottle


__all__ = ["DEADLINES", "KEEP_ALIVE", "MOST_CONNECTIONS", "Door", "Server", "visitor_type"]


MOST_CONNECTIONS: Final = 512

KEEP_ALIVE: Final = 75
"""
Seconds that a connection may be idle between two requests.
"""

DEADLINES: Final[dict[str, float]] = {
    "head": 10.0,
    "body": 12.0,  # A little more than the API allows, so that it can still say so.
    "work": 60.0,
    "reading": 30.0,
    "idle": KEEP_ALIVE + 5.0,  # uvicorn ends it in order before.
    "leaving": 5.0,
}
"""
Seconds that a connection may be at one thing; a TLS handshake has as many as a head.
"""

_LOOK_EVERY: Final = 1.0
_BREATH: Final = 0.05
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Stage = Literal["head", "body", "work", "reading", "idle", "leaving"]
"""
What a connection is at: its client sends the *head* or the *body* of a request; we *work* on the answer; its client is *reading* that;
it is *idle*; or it is *leaving*, with nothing more to say.
"""

log = logging.getLogger("celery_obs.exporter")


class Visitor(H11Protocol):
    """
    A connection that knows what it is at, and since when.
    """

    cycle: Any  # None before the first request, whatever uvicorn's annotation says.
    stage: Stage = "head"
    since: float = 0.0
    is_ended: bool = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.since = self.loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.look()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()
        self.look()

    def look(self) -> None:
        """
        Find out what the connection is at.
        """
        stage = self._stage_now()
        if stage != self.stage:
            self.stage, self.since = stage, self.loop.time()

    def is_late(self) -> bool:
        """
        Tell whether it has been at it for too long.
        """
        return self.loop.time() - self.since > DEADLINES[self.stage]

    def end(self) -> None:
        """
        End the connection at once; what was written to it and not read is lost, in the kernel, too.
        """
        self.is_ended = True
        if self.stage == "reading":
            opened = self.transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _stage_now(self) -> Stage:
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        if self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing():
            return "reading" if self.flow.write_paused else "work"
        if self.transport.get_write_buffer_size() > 0:
            return "reading"
        if self.transport.is_closing():
            return "leaving"
        is_between = self.cycle is not None and self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        return "idle" if is_between else "head"


def visitor_type(is_allowed: Callable[[asyncio.Transport], bool]) -> type[Visitor]:
    """
    Make the protocol of connections, of which those that *is_allowed* refuses are ended before they say anything.
    """

    class Checked(Visitor):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            if not is_allowed(transport):
                transport.abort()
            super().connection_made(transport)

    return Checked


@dataclass(eq=False)
class _Newcomer:
    """
    A connection from its acceptance until its protocol has it, which with TLS is when both sides have agreed.
    """

    accepted: socket.socket
    since: float
    task: asyncio.Task[None] | None = None
    is_ended: bool = False

    def end(self) -> None:
        self.is_ended = True
        if self.task is not None:
            self.task.cancel()
        # What ends it in every version of asyncio, whatever TLS still waits for.
        try:
            self.accepted.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


class Door:
    """
    Accepts connections of listening sockets, ends those that are late, and those that wait for longest when there is no room for another.

    Args:
        make: Makes the protocol of a connection.

        inside: The connections that have a protocol; kept by uvicorn.

        tls: With what they are encrypted; None for not at all.

        most: Connections at once.

    Threads: of the event loop in which it was opened.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol], inside: Collection[Any], *, tls: ssl.SSLContext | None, most: int) -> None:
        self._make = make
        self._inside = inside
        self._tls = tls
        self._most = most
        self._new: set[_Newcomer] = set()
        self._own: list[asyncio.Task[None]] = []
        self._listening: list[socket.socket] = []
        self._throttle = LogThrottle(clock=time.monotonic)

    def open(self, sockets: Iterable[socket.socket]) -> None:
        """
        Begin to accept.
        """
        loop = asyncio.get_running_loop()
        self._own = [loop.create_task(self._end_late())]
        for listening in sockets:
            listening.setblocking(False)  # noqa: FBT003 -- the only way to say it.
            self._listening.append(listening)
            self._own.append(loop.create_task(self._accept(listening)))

    def close(self) -> None:
        """
        Accept no more, and end those that have no protocol yet.
        """
        for task in self._own:
            task.cancel()
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
        for newcomer in list(self._new):
            newcomer.end()

    async def wait_closed(self) -> None:
        """
        Wait until what `close` ended has ended.
        """
        tasks = [*self._own, *(newcomer.task for newcomer in self._new if newcomer.task is not None)]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._tell_shortage(error)
                    await asyncio.sleep(0 if self._make_room() else _BREATH)
                continue
            await self._find_room()
            newcomer = _Newcomer(accepted, loop.time())
            self._new.add(newcomer)
            newcomer.task = loop.create_task(self._let_in(newcomer))
            await asyncio.sleep(0)  # A crowd must not keep the loop from those who are inside.

    async def _let_in(self, newcomer: _Newcomer) -> None:
        deadline = {"ssl_handshake_timeout": DEADLINES["head"]} if self._tls is not None else {}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._make, newcomer.accepted, ssl=self._tls, **deadline)
        except OSError as error:
            log.debug("A connection ended before it began: %s", error)
        finally:
            self._new.discard(newcomer)

    async def _end_late(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for visitor in list(self._inside):
                visitor.look()
                if visitor.is_late():
                    visitor.end()

    async def _find_room(self) -> None:
        while not (self._has_room() or self._make_room()):  # noqa: ASYNC110 -- all are being answered, which takes a moment.
            await asyncio.sleep(_BREATH)

    def _has_room(self) -> bool:
        return sum(not each.is_ended for each in (*self._new, *self._inside)) < self._most

    def _make_room(self) -> bool:
        """
        End the connection that has waited for its client for longest, else the one whose client reads slowest; tell whether there was one.
        """
        waiting: list[Any] = [newcomer for newcomer in self._new if not newcomer.is_ended]
        slow: list[Any] = []
        for visitor in self._inside:
            visitor.look()
            if visitor.stage != "work" and not visitor.is_ended:
                (slow if visitor.stage == "reading" else waiting).append(visitor)
        oldest = min(waiting or slow, key=lambda each: float(each.since), default=None)
        if oldest is None:
            return False
        oldest.end()
        return True

    def _tell_shortage(self, error: OSError) -> None:
        if self._throttle.allows("shortage"):
            log.error(
                "Cannot accept a connection: %s. Idle connections are closed. Raise the limit of open files (ulimit -n, LimitNOFILE) if it lasts.",
                error.strerror,
            )


class Server(uvicorn.Server):
    """
    uvicorn's server behind our door.

    Args:
        config: Of uvicorn, loaded.

        most: Connections at once.
    """

    def __init__(self, config: uvicorn.Config, *, most: int = MOST_CONNECTIONS) -> None:
        super().__init__(config)
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early: list[Callable[[], object]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Begin to accept connections of *sockets*.
        """
        await super().startup(sockets=[])
        self._loop = asyncio.get_running_loop()
        door = Door(self._visitor, self.server_state.connections, tls=self.config.ssl, most=self._most)
        self.servers = [door]  # type: ignore[list-item]  # It is closed and waited for as uvicorn's own.
        door.open(sockets or [])
        while self._early:
            self._loop.call_soon(self._early.pop(0))

    def soon(self, call: Callable[[], object]) -> None:
        """
        Have *call* called by the event loop as soon as it runs; from a signal's handler, too.  After it has ended, nothing is called.
        """
        if self._loop is None:
            self._early.append(call)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _visitor(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return made
