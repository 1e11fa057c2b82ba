"""
One environment for worker, beat, exporter and commands: what is an option of one, or of none, stops none of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import RedisServer
from tests.unit.settings.test_environment import REPORTED
from tests.workers import Worker


pytestmark = pytest.mark.integration


def test_a_worker_with_beat_starts_beside_variables_that_it_does_not_know(redis_server: RedisServer, tmp_path: Path) -> None:
    """
    Main process, pool processes and the beat inside work; the log names what nothing reads, once, with the name that was meant.
    """
    others = {f"CELERY_OBS_{name}": "15" for name in (*REPORTED, "IMAGE_TAG", "LABEL_LIMTI")}

    with Worker("-c", "2", "-B", "-s", str(tmp_path / "schedule"), redis=redis_server.url, folder=tmp_path, **others) as worker:
        told = worker.log.read_text()

    assert 1 == told.count("unknown environment variable")
    assert "without effect: CELERY_OBS_IMAGE_TAG, CELERY_OBS_LABEL_LIMTI (did you mean CELERY_OBS_LABEL_LIMIT?)" in told
