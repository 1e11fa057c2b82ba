"""
All rules at once, over every metric of the catalogue from two exporters: none has an error, and every recorded series has something in it.

Two targets that show the same are what a rule is written for last and meets first: "many-to-many" is an error that only data can show.
"""

from __future__ import annotations

import itertools
import subprocess

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.rules.packs.aliases import ALIASES, RELABELLED
from celery_obs.rules.third_party import FOREIGN
from celery_obs.vocabulary.spec import Metric
from tests.unit.rules.shipped import RECORDS, made_here

from .promtool import promtool, run_tests


ROOT = Path(__file__).parents[2]

_KNOWN_VALUES = {
    "status": ("success", "failure"),
    "state": ("success", "failure", "revoked", "rejected"),
    "queue": ("alerts", "q"),
    "error_type": ("network", "rate_limit"),
    "status_code": ("200", "503"),
    "result": ("allowed", "denied"),
}
"""
Values that rules and aliases ask for by name; any other label has any two.
"""


_ALIASED = [record for aliases in ALIASES.values() for alias in aliases for record in alias.records()]
_ADDED = {each.metric.name: each.labels for relabelled in RELABELLED.values() for each in relabelled}


def series_of(metric: Metric) -> Iterator[tuple[str, str]]:
    """
    Write all series of a metric, of two targets, in promtool's notation.
    """
    # Two are enough for a histogram, which has many series as it is.
    most = 2 if metric.kind == "histogram" else None
    values = [_KNOWN_VALUES.get(label, ("a", "b"))[:most] for label in metric.labels]
    for combination in itertools.product(("i1", "i2"), *values):
        labels = dict(zip(("instance", *metric.labels), combination, strict=True)) | {"job": "celery-obs"}
        if labels["instance"] == "i1":
            # One of the two is scraped with the labels that its series have in another system.
            labels |= {new: labels[label] for label, new in _ADDED.get(metric.name, {}).items()}
        if metric.kind == "histogram":
            for edge in (*(f"{bound:g}" for bound in metric.buckets), "+Inf"):
                yield _named(f"{metric.name}_bucket", {**labels, "le": edge}), "0+6x30"
            yield _named(f"{metric.name}_count", labels), "0+6x30"
            yield _named(f"{metric.name}_sum", labels), "0+6x30"
        else:
            yield _named(metric.name, labels), "0+6x30" if metric.kind == "counter" else "1x30"


def test_every_rule_works_on_everything_that_two_exporters_show(tmp_path: Path) -> None:
    """
    No rule has an error, and every recorded series and every alias has something in it.
    """
    paths = []
    for output in made_here():
        if "\ngroups:" in output.text:
            paths.append(tmp_path / Path(output.path).name)
            paths[-1].write_text(output.text, encoding="utf-8")
    given = [
        {"series": name, "values": values} for metric in (*CATALOGUE.values(), *FOREIGN.values()) for name, values in series_of(metric)
    ]
    names = sorted({record.name for record in (*RECORDS, *_ALIASED)})
    asked = [{"expr": f"count({name}) > bool 0", "eval_time": "25m", "exp_samples": [{"labels": "{}", "value": 1}]} for name in names]
    order = [
        line.partition("name: ")[2]
        for path in sorted(paths, key=_alerts_last)
        for line in path.read_text("utf-8").splitlines()
        if "- name: " in line
    ]

    test: dict[str, Any] = {"interval": "1m", "input_series": given, "promql_expr_test": asked}
    done = run_tests(paths, [test], tmp_path, every="5m", order=order)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_promtool_has_nothing_to_say_about_the_committed_rules() -> None:
    """
    Its linter is content, too: no rule is there twice.
    """
    files = sorted(
        str(path) for path in (ROOT / "deploy" / "prometheus").glob("*/*.yml") if path.read_text("utf-8").partition("\ngroups:")[1]
    )

    done = subprocess.run([promtool(), "check", "rules", "--lint=all", "--lint-fatal", *files], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert len(files) == done.stdout.count("SUCCESS")


def _alerts_last(path: Path) -> tuple[bool, str]:
    return path.name.startswith("alerts"), path.name


def _named(name: str, labels: dict[str, str]) -> str:
    inside = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inside}}}"
