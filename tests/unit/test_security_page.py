"""
The page on security promises nothing that no test shows.
"""

from __future__ import annotations

import re

from pathlib import Path

from celery_obs.cli.exporter import exporter
from celery_obs.exporter.server import Options, parse_address
from tests.pages import DOCS


PAGE = DOCS / "explanation" / "security.md"
TESTS = Path(__file__).parents[1]


def test_every_test_that_the_page_names_exists() -> None:
    """
    A promise whose test was renamed or removed is found out.
    """
    named = {name for names in re.findall(r"\[(test_[\w, ]+)\]", PAGE.read_text(encoding="utf-8")) for name in names.split(", ")}
    there = {name for path in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))}

    assert len(named) > 30
    assert set() == named - there


def test_every_topic_of_the_security_policy_is_on_the_page() -> None:
    """
    SECURITY.md, where people look first, leads there.
    """
    policy = (DOCS.parent / "SECURITY.md").read_text(encoding="utf-8")

    assert "docs/explanation/security.md" in policy
    assert {"## What listens", "## The metrics directory", "## The sidecar's door", "## Secrets"} <= set(
        PAGE.read_text(encoding="utf-8").splitlines()
    )


def test_the_sidecar_listens_on_loopback_unless_told_otherwise() -> None:
    """
    So do its options in a program.
    """
    (option,) = [each for each in exporter.params if each.name == "addresses"]

    assert Options().addresses == option.default
    assert ["127.0.0.1"] == [parse_address(address)[0] for address in Options().addresses]
