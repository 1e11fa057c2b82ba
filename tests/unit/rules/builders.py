"""
Alerts and groups in which only what a test is about is written.
"""

from __future__ import annotations

from typing import Any

from celery_obs.rules.rules import Alert, Group, RecordingRule


__all__ = ["alert", "group"]


def alert(**changes: Any) -> Alert:
    """
    Make an alert without numbers.
    """
    facts: dict[str, Any] = {
        "name": "QueueLong",
        "severity": "warning",
        "expr": "celery_queue_depth > 1",
        "by": ("queue",),
        "summary": "Queue {{ $labels.queue }} is long",
        "description": "{{ $value }} wait.",
        "dashboard": "celery-queues",
    }
    return Alert(**{**facts, **changes})


def group(name: str, *rules: Alert | RecordingRule) -> Group:
    """
    Make a group.
    """
    return Group(name=name, comment="", rules=rules)
