"""
A program that meets the worst: channels and endpoints without end, ids that are no ids, and a provider that answers nonsense.

``python -m hostile channels|endpoints|ids|provider``; what it saw is one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys

from collections import Counter

import httpx

from celery import Celery

import celery_obs

from celery_obs.areas.channels.api_calls.api import HttpxTransport, api_call


MANY = 10_000
IDS = ('it\'s "quoted"', "two\nlines\r\n", "x" * 10_240, "\udcff", "", "a:b{c}*", "\x00")
# After the last one, the channel is left alone for a while.
FAULTS = ("html", "endless", "redirect", "drop", "outage", "slow", "rate_limit")

app = Celery("hostile", broker=os.environ["TEST_BROKER"])
celery_obs.setup(app, label_limit=50, channels={"*": {"circuit_breaker": "off"}})


def channels() -> dict[str, int]:
    """
    Sync with ten thousand channels.
    """
    for number in range(MANY):
        with celery_obs.sync_run(f"channel-{number}", "export", connection_id=f"c-{number}") as run:
            run.updated()
        with celery_obs.webhook(f"channel-{number}", f"event-{number}"):
            pass
    return {}


def endpoints() -> dict[str, int]:
    """
    Call ten thousand endpoints.
    """
    for number in range(MANY):
        with api_call("airbnb", f"/things/word{'abcdefghij'[number % 10]}-{number}/part{number}x", "GET") as call:
            call.response(200)
    return {}


def ids() -> dict[str, int]:
    """
    Sync accounts whose ids are anything.
    """
    seen: Counter[str] = Counter()
    for connection_id in IDS:
        try:
            celery_obs.register_connection(connection_id, "airbnb")
        except ValueError:
            seen["refused"] += 1
        with celery_obs.sync_run("airbnb", "export", connection_id=connection_id) as run:
            run.created(2)
            with api_call("airbnb", "/listings/{id}", "GET", connection_id=connection_id) as call:
                call.response(200)
        seen["synced"] += 1
    return dict(seen)


def provider() -> dict[str, int]:
    """
    Read a calendar from a provider that fails in each of its ways.
    """
    url, seen = os.environ["TEST_PROVIDER"], Counter[str]()
    with httpx.Client(transport=HttpxTransport("airbnb"), timeout=0.5, trust_env=False, follow_redirects=True) as client:
        for kind in FAULTS:
            path = f"/listings/{kind}/calendar"
            httpx.post(f"{url}/admin/faults", json={"path": path, "kind": kind, "value": 2}, trust_env=False).raise_for_status()
            try:
                with celery_obs.sync_run("airbnb", "import", "inbound"), client.stream("GET", url + path) as answer:
                    answer.raise_for_status()
                    body = b""
                    for piece in answer.iter_raw():
                        body += piece
                        if len(body) > 1 << 20:
                            raise OverflowError
                    json.loads(body)
            except Exception as exc:  # noqa: BLE001 -- which one is what is told.
                seen[f"{kind}:{type(exc).__name__}"] += 1
    return dict(seen)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"channels": channels, "endpoints": endpoints, "ids": ids, "provider": provider}[sys.argv[1]]()) + "\n")
