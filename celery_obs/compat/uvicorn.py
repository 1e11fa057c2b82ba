"""
uvicorn: its protocol of HTTP/1.1 and its server, around which the sidecar has its own door.
"""

from __future__ import annotations

from typing import Final


__all__ = ["PROTOCOL", "SERVER"]


PROTOCOL: Final = ("conn", "cycle", "flow", "loop", "transport")
"""
The attributes of a connection's protocol that say what the connection is at.

Assumes: ``uvicorn.protocols.http.h11_impl.H11Protocol`` sets these, ``cycle`` None before the first request; and calls ``on_response_complete``.
Seen on: uvicorn 0.32 to 0.54.
Lost: the sidecar's deadlines for slow and idle clients; its tests fail first, and no worker depends on it.
"""

SERVER: Final = ("config", "server_state", "lifespan", "servers")
"""
The attributes of a server through which it takes connections that our door has accepted, and waits for them when it ends.

Assumes: ``uvicorn.Server`` has these after ``startup(sockets=[])``, and closes what is in ``servers``.
Seen on: uvicorn 0.32 to 0.54.
Lost: the sidecar does not start; no worker depends on it.
"""
