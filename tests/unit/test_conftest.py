"""
The tests' own safety net.
"""

from __future__ import annotations

import pytest

from tests.conftest import find_server


def test_a_missing_server_skips_the_test_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who has no Redis can still run the rest.
    """
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="needs no-such-server"):
        find_server("no-such-server")


def test_a_missing_server_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    CI never skips for want of a server.
    """
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="In CI a missing server is a failure"):
        find_server("no-such-server")
