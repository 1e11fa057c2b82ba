"""
The tutorial about the sync engine, followed to the letter; only its ports are other ones.
"""

from __future__ import annotations

import json
import os
import re
import sys

from pathlib import Path

import pytest

from cryptography.fernet import Fernet

from celery_obs.demo.provider import Fault, Provider
from tests.servers import wait_until
from tests.workers import Metrics, settle_at

from .conftest import Stage


pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "a-sync-engine.md"


def files_of(page: str) -> dict[str, str]:
    """
    Return the files that the page has its reader write.
    """
    blocks = re.findall(r"^   ```python\n(.*?)^   ```", page, re.DOTALL | re.MULTILINE)
    written = [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in blocks]
    return {re.match(r"# (\S+)", each)[1]: each for each in written}  # type: ignore[index]  # Each begins with its name.


def exports_of(page: str) -> dict[str, str]:
    """
    Return the settings that the page has its reader export, as JSON texts.
    """
    return dict(re.findall(r"export (CELERY_OBS_\w+)='(\{.*\})'", page))


def test_the_tutorial_about_the_sync_engine_works(stage: Stage) -> None:
    """
    A sync that works, a channel that fails, a breaker that opens, and a token that is refreshed by its short name.
    """
    with Provider(channels=["airbnb"], token_lifetime=900) as provider:

        def here(text: str) -> str:
            return text.replace("localhost:8765", provider.url.removeprefix("http://")).replace("redis://localhost:6379/0", stage.redis.url)

        page = PAGE.read_text(encoding="utf-8")
        for name, text in files_of(page).items():
            (stage.folder / name).write_text(here(text))
        environ = {
            "PYTHONPATH": os.pathsep.join([str(stage.folder), stage.environ["PYTHONPATH"]]),
            "CELERY_OBS_TOKEN_KEYS": Fernet.generate_key().decode(),
            **{name: here(value) for name, value in exports_of(page).items()},
        }
        assert {"CELERY_OBS_OAUTH_CLIENTS", "CELERY_OBS_CHANNELS"} <= environ.keys()

        def call(task: str, *args: object) -> None:
            code, said = stage.run(
                sys.executable, "-m", "celery", "-A", "hotel", "call", task, f"--args={json.dumps(args)}", name="call", **environ
            )
            assert 0 == code, said

        code, said = stage.run(sys.executable, str(stage.folder / "consent.py"), name="consent", **environ)
        assert 0 == code, said
        stage.worker("--concurrency=1", app="hotel", **{**environ, "TEST_BROKER": stage.redis.url})
        metrics = Metrics(stage.metrics_dir)

        call("hotel.export_availability", "seaside-inn", "2030-05-01", 7)
        settle_at(1, lambda: metrics.find("channel_sync_total", status="success"))
        assert 1 == metrics.find("channel_sync_records_total", result="updated")

        provider.faults.switch_on(Fault("outage", path="/airbnb/listings"))
        for _ in range(5):
            # As the command does, without five interpreters.
            stage.client.send_task("hotel.export_availability", ("seaside-inn", "2030-05-01", 6), queue="celery")
        settle_at(3, lambda: metrics.find("channel_sync_total", status="failure"))
        wait_until(lambda: (metrics.find("channel_sync_held_back_total", reason="circuit_breaker") or 0) >= 2, what="those that wait")
        provider.faults.clear()
        settle_at(1 + 2, lambda: metrics.find("channel_sync_total", status="success"), within=40)
        assert 3 == metrics.find("channel_sync_total", status="failure")

        before = provider.accounts.refreshes("seaside-inn")
        call("refresh_single_token", "seaside-inn")
        settle_at(1, lambda: metrics.find("channel_token_refresh_total", status="success"))
        assert before + 1 == provider.accounts.refreshes("seaside-inn")
