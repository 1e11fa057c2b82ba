"""
The demo with the token endpoints of real providers: what it counts is what the endpoints have answered.
"""

from __future__ import annotations

import json
import re
import urllib.request

from collections import Counter
from pathlib import Path

import pytest

from celery_obs.areas.channels.tokens.metrics import REFRESH_TOTAL
from celery_obs.demo.provider.zoo import SPECIES
from celery_obs.demo.providers import channel_of
from tests.conftest import find_server
from tests.demo import Demo
from tests.servers import wait_until
from tests.workers import samples_in


pytestmark = pytest.mark.integration


def ledger_of(demo: Demo) -> Counter[tuple[str, str]]:
    """
    Return how often each endpoint answered what, as it wrote down itself.
    """
    found = re.search(r"http://127.0.0.1:\d+", (demo.folder / "providers.log").read_text())
    assert found, demo.process.tail()
    with urllib.request.urlopen(found[0] + "/admin/ledger", timeout=5) as answer:  # noqa: S310 -- our own.
        return Counter((entry["provider"], entry["kind"]) for entry in json.load(answer))


def counted_by(demo: Demo) -> Counter[tuple[str, str]]:
    """
    Return the same as the page tells it; only what was granted and what was refused for good, since each refresh that failed may have asked or not.
    """
    page = samples_in(demo.scrape())
    kinds = {"good": "success", "dead": "refused"}
    return +Counter(
        {
            (provider, kind): int(page.get((REFRESH_TOTAL.name, (("channel_type", channel_of(provider)), ("status", status))), 0))
            for provider in SPECIES
            for kind, status in kinds.items()
        }
    )


def test_twelve_providers_are_asked_and_counted_as_they_answered(tmp_path: Path) -> None:
    """
    Each gives a token in the end or refuses one for good, some after they throttled, broke or talked gibberish; both sides count the same.
    """
    find_server("redis-server")
    with Demo(tmp_path, "--providers") as demo:
        wait_until((tmp_path / "providers.log").exists, within=30, what="the endpoints")

        def settled() -> bool:
            assert demo.process.is_alive(), demo.process.tail()
            try:
                asked = ledger_of(demo)
                counted = counted_by(demo)
            except (OSError, AssertionError):
                return False
            decided = Counter({key: count for key, count in asked.items() if key[1] in {"good", "dead"}})
            return {provider for provider, _ in decided} == set(SPECIES) and decided == counted == counted_by(demo)

        wait_until(settled, within=90, what="each provider's token or refusal, counted as it was answered")

        kinds = {kind for _, kind in ledger_of(demo)}
        assert kinds >= {"good", "dead", "throttled", "broken", "gibberish"}
        assert "malformed" not in kinds
        assert "wrong_client" not in kinds
        assert 0 == demo.stop()
    assert "token endpoint" in demo.process.log.read_text()
