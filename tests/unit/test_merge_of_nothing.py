"""
The merge where there is nothing to merge.
"""

from __future__ import annotations

from celery_obs.exporter.files.merge import MergedText


def test_no_nodes_make_no_lines() -> None:
    """
    A sidecar that starts before the first worker has nothing to show, and says so.
    """
    merged = MergedText(on_conflict=lambda _: None, on_decrease=lambda: None)

    merged.update([])

    assert [] == merged.all_lines()
