"""
The short part of ``tox -e upstream``: some of Celery's own tests, with us and without us.
"""

from __future__ import annotations

import os
import subprocess

from pathlib import Path

import pytest

from .__main__ import SUITES, Difference, compare, fetch, run


pytestmark = pytest.mark.integration

TESTS = ("t/unit/app/test_amqp.py", "t/unit/app/test_routes.py", "t/unit/app/test_app.py", "t/unit/tasks/test_tasks.py")


def test_an_app_of_celerys_own_tests_is_as_without_us(tmp_path: Path) -> None:
    """
    Celery's unit tests of apps, messages, routes and tasks go the same whether each of their apps is set up, in an active process, or none.
    """
    suite = SUITES["celery-unit"]._replace(options=("-p", "celery.contrib.pytest"))
    try:
        source = fetch(suite.package, tmp_path)
    except subprocess.CalledProcessError:
        if os.environ.get("CI"):
            raise
        pytest.skip("Celery's source distribution cannot be downloaded.")

    without, observed = (run(suite, source, TESTS, observed=observed, folder=tmp_path).tests for observed in (False, True))

    assert {} == compare(without, observed)
    assert 300 < sum(outcome == "passed" for outcome in without.values())


def test_what_goes_differently_is_found() -> None:
    """
    A test that fails, or is not there, on one side only is a difference.
    """
    found = compare({"same": "passed", "worse": "passed", "gone": "skipped"}, {"same": "passed", "worse": "failed"})

    assert {"worse": Difference("passed", "failed"), "gone": Difference("skipped", "absent")} == found
