"""
Promtool's unit tests of rules: what time series say, when an alert fires, and with what texts.
"""

from __future__ import annotations

import re
import shutil
import subprocess

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from celery_obs.rules.links import Links
from celery_obs.rules.rules import Alert
from celery_obs.rules.yaml_text import Tree, to_yaml
from tests.servers import missing


__all__ = ["Case", "as_test", "promtool", "run_tests"]


class Case(NamedTuple):
    """
    One story of an alert: all is well, it gets bad, it gets well again.

    Attributes:
        alert: Its name.

        series: What is scraped every minute, in promtool's notation.

        quiet: When nothing may be heard yet, in minutes: while all is well, and while it is bad and may still pass by itself.

        fires: When it has to be heard.

        recovers: When it has to be silent again; None for one that always fires.

        labels: With which labels it fires.

        value: How the description shows the value.
    """

    alert: str
    series: Mapping[str, str]
    quiet: tuple[int, ...]
    fires: int
    recovers: int | None
    labels: Mapping[str, str] = {}
    value: str = ""


def promtool() -> str:
    """
    Return the path of promtool, or skip the test.
    """
    found = shutil.which("promtool")
    if found is None:
        missing("promtool")
        raise AssertionError
    return found


def as_test(case: Case, alert: Alert) -> Mapping[str, Tree]:
    """
    Write a case as promtool reads it.
    """
    labels = {"severity": alert.severity, **alert.labels, **case.labels}
    annotations = {name: _rendered(text, labels, case.value) for name, text in alert.annotations(Links()).items()}
    fired = [{"exp_labels": labels, "exp_annotations": annotations}]
    silent = [*case.quiet, *([] if case.recovers is None else [case.recovers])]
    expected: list[Any] = [{"eval_time": f"{case.fires}m", "alertname": alert.name, "exp_alerts": fired}]
    expected += [{"eval_time": f"{minute}m", "alertname": alert.name, "exp_alerts": []} for minute in silent]
    return {"interval": "1m", "input_series": _input(case.series), "alert_rule_test": expected}


def run_tests(
    rule_files: Iterable[Path], tests: Iterable[Mapping[str, Tree]], where: Path, *, every: str = "1m", order: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """
    Have promtool make the *tests*, evaluating the rules *every* so often.

    Args:
        order: The groups whose rules read what those of others record, after these; without it promtool takes any order.
    """
    path = where / "tests.yml"
    tree: dict[str, Any] = {"rule_files": [str(each.resolve()) for each in rule_files], "evaluation_interval": every, "tests": list(tests)}
    if order:
        tree["group_eval_order"] = list(order)
    path.write_text(to_yaml(tree), encoding="utf-8")
    return subprocess.run([promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False, timeout=120)


def _input(series: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in series.items()]


def _rendered(text: str, labels: Mapping[str, str], value: str) -> str:
    """
    Fill in what Prometheus fills in; how it shows the value is what the case says.
    """
    text = re.sub(r"\{\{ \$labels\.(\w+) \| urlquery \}\}", lambda found: quote(labels[found[1]], safe=""), text)
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", value, text)
