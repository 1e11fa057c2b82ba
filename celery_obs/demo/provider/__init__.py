"""
A fake channel: a real HTTP server with an OAuth2 token endpoint, an inventory, rate limits, and faults that are switched on while it runs.

For the demo it runs as a process, ``python -m celery_obs.demo.provider``; tests take it in as a context::

    with Provider() as provider:
        grant = provider.accounts.authorize("conn-1")

It serves loopback only, and everything that it keeps is bounded.
"""

from __future__ import annotations

from .accounts import Accounts, Grant
from .faults import Fault, Faults
from .inventory import Inventory, availability
from .server import Provider


__all__ = ["Accounts", "Fault", "Faults", "Grant", "Inventory", "Provider", "availability"]
