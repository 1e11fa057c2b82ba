"""
What we assume of uvicorn holds on the version that is installed.
"""

from __future__ import annotations

import asyncio

from typing import Any

import uvicorn

from uvicorn.protocols.http.h11_impl import H11Protocol

from celery_obs.compat import uvicorn as compat


async def _app(_scope: object, _receive: object, _send: object) -> None:
    """
    Answer nothing.
    """


def test_a_server_that_started_and_its_protocol_have_what_the_door_uses() -> None:
    """
    After the start without sockets the server has its parts, and a protocol of its own has those that say what it is at.
    """

    async def start() -> None:
        """
        Start one, and make the protocol of a connection.
        """
        config = uvicorn.Config(_app, lifespan="off", log_config=None)
        config.load()
        server: Any = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[])
        assert [name for name in compat.SERVER if not hasattr(server, name)] == []
        assert list(server.servers) == []
        made: Any = H11Protocol(config=config, server_state=server.server_state, app_state={})
        assert [name for name in compat.PROTOCOL if not hasattr(made, name)] == []
        assert made.cycle is None
        assert callable(made.on_response_complete)

    asyncio.run(start())
