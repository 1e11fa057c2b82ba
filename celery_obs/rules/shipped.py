"""
The files that come with the package: where they lie, which part each belongs to, and which are about channels.

A wheel has them below the package, a checkout beside it; both under the same paths, which are also those of what `celery-obs generate` writes.
"""

from __future__ import annotations

import os
import re

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from celery_obs.areas import AREAS
from celery_obs.exceptions import ConfigurationError

from . import kubernetes
from .links import Links
from .render import Output


__all__ = ["PARTS", "Part", "alerts_in", "is_about_channels", "shipped", "without_channels"]


_PACKAGE: Final = Path(__file__).parents[1]
_IN_THE_WHEEL: Final = _PACKAGE / "_shipped"
_RULES: Final = "deploy/prometheus/rules"
_RUNBOOKS: Final = "docs/runbooks"
_GRAFANA: Final = ("deploy/grafana/dashboards", "deploy/grafana/kustomization.yaml")


class Part(NamedTuple):
    """
    Files that are asked for by one word.

    Attributes:
        summary: What they are, for a list.

        paths: The files and folders.

        only_when_named: Whether they are left out where no part is named.

        with_channels: Whether they do not work without what is about channels.
    """

    summary: str
    paths: tuple[str, ...]
    only_when_named: bool = False
    with_channels: bool = False


PARTS: Final[Mapping[str, Part]] = {
    "rules": Part("Prometheus recording rules, alerts and objectives", (_RULES,)),
    "aliases": Part("Prometheus rules with the metric names of other exporters", ("deploy/prometheus/aliases", "deploy/prometheus/labels")),
    "prometheus": Part(
        "Prometheus configuration",
        ("deploy/prometheus/prometheus.yml", "deploy/prometheus/default.debian", "deploy/prometheus/targets"),
    ),
    "alertmanager": Part("Alertmanager routes, inhibitions and message templates", ("deploy/alertmanager",)),
    "dashboards": Part("Grafana dashboards, data sources and provisioning", ("deploy/grafana",)),
    "runbooks": Part("a runbook for each alert", (_RUNBOOKS,)),
    "kubernetes": Part("kustomize base and components, with rules and dashboards as resources", ("deploy/kubernetes", *_GRAFANA)),
    "systemd": Part("systemd units for worker, beat, exporter and the daily check", ("deploy/systemd",)),
    "telemetry": Part("OpenTelemetry collector, Loki and Tempo configuration", ("deploy/otel", "deploy/loki", "deploy/tempo")),
    "scripts": Part("the daily check of channels as a shell script", ("deploy/scripts",)),
    "compose": Part(
        "everything on one machine, with the demo app, for docker compose",
        ("deploy/compose", "deploy/prometheus", "deploy/alertmanager", "deploy/grafana", "deploy/otel", "deploy/loki", "deploy/tempo"),
        only_when_named=True,
        with_channels=True,
    ),
}
"""
The parts, by the words that people type.
"""

_CHANNEL_RULES: Final = frozenset(
    {"recording-channels", "slo-channels", *(f"alerts-{area.name.replace('_', '-')}" for area in AREAS if area.is_about_channels)}
)
_CHANNEL_FILES: Final = (
    "deploy/grafana/dashboards/channel-*",
    "deploy/grafana/dashboards/celery-obs-business.json",
    "deploy/prometheus/aliases/aliases-business-hub.yml",
    "deploy/prometheus/aliases/aliases-health-exchange.yml",
    "deploy/prometheus/aliases/aliases-pms.yml",
    "deploy/prometheus/aliases/aliases-publishing.yml",
    "deploy/scripts/*",
)
_FOLDERS_OF_RULES: Final = (_RULES, str(kubernetes.RULES))

# What people make beside the shipped files of a checkout.
_PRIVATE: Final = frozenset({"secrets", ".env", "compose.override.yml", "__pycache__"})

_ALERT: Final = re.compile(r"^ *- alert: \"?(\w+)", re.MULTILINE)
_ABOUT_CHANNELS: Final = re.compile(r"^ *# Channels: .*\n(?:.*\n)*? *# End of channels\.\n", re.MULTILINE)


def is_about_channels(path: str) -> bool:
    """
    Tell whether a rule file, a dashboard or another file is about channels alone.  Of runbooks, only their alerts tell.
    """
    name = PurePosixPath(path)
    if str(name.parent) in _FOLDERS_OF_RULES:
        return name.stem in _CHANNEL_RULES
    return any(name.match(pattern) for pattern in _CHANNEL_FILES)


def alerts_in(text: str) -> set[str]:
    """
    Return the names of the alerts in a file of rules.
    """
    return set(_ALERT.findall(text))


def shipped(parts: Collection[str] = (), *, channels: bool = False, links: Links | None = None) -> tuple[Output, ...]:
    """
    Read the files of *parts*, or of all that are not asked for by name only.

    Args:
        parts: Keys of `PARTS`.

        channels: Whether to include what is about channels.

        links: Where runbooks and dashboards are served; alerts lead there.

    Raises:
        ConfigurationError: if the installation lacks the files.
    """
    chosen = [PARTS[name] for name in parts] or [part for part in PARTS.values() if not part.only_when_named]
    files = tuple(_files())
    if not channels and not any(part.with_channels for part in chosen):
        files = tuple(without_channels(files))
    wanted = tuple(path for part in chosen for path in part.paths)
    where = links or Links()
    return tuple(_linked(file, where) for file in files if _is_below(file.path, wanted))


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _files() -> Iterator[Output]:
    root = _root()
    for top in ("deploy", _RUNBOOKS):
        for folder, folders, names in os.walk(root / top):
            folders[:] = sorted(set(folders) - _PRIVATE)
            for name in sorted(set(names) - _PRIVATE):
                path = Path(folder, name)
                yield Output(
                    path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"), executable=bool(path.stat().st_mode & 0o100)
                )


def _root() -> Path:
    for root in (_IN_THE_WHEEL, _PACKAGE.parent):
        if (root / _RULES).is_dir() and (root / _RUNBOOKS).is_dir():
            return root
    message = (
        f"The files to write are missing. Expected them in {_IN_THE_WHEEL}, where the wheel has them, or in deploy and docs/runbooks beside "
        f"{_PACKAGE}, where a checkout has them. Install celery_obs again from its wheel."
    )
    raise ConfigurationError(message)


def without_channels(files: Collection[Output]) -> Iterator[Output]:
    """
    Leave out what is about channels alone: rules, dashboards, runbooks, and what lists and manifests say of them.
    """
    left_out = {file.path for file in files if is_about_channels(file.path)} | _runbooks_of_channels(files)
    kept = [file for file in files if file.path not in left_out]
    # Lists of rules and of dashboards name those that are there.
    lists = {made.path: made for made in kubernetes.derive(kept)}
    for file in kept:
        yield lists.get(file.path) or file._replace(text=_ABOUT_CHANNELS.sub("", file.text))


def _runbooks_of_channels(files: Iterable[Output]) -> set[str]:
    of_channels: set[str] = set()
    of_others: set[str] = set()
    for file in files:
        if _is_below(file.path, (_RULES,)):
            (of_channels if is_about_channels(file.path) else of_others).update(alerts_in(file.text))
    return {f"{_RUNBOOKS}/{alert}.md" for alert in of_channels - of_others}


def _linked(file: Output, links: Links) -> Output:
    if not _is_below(file.path, _FOLDERS_OF_RULES):
        return file
    usual = Links()
    text = file.text.replace(f"{usual.runbooks}/", f"{links.runbooks.rstrip('/')}/").replace(
        f"{usual.grafana}/", f"{links.grafana.rstrip('/')}/"
    )
    return file._replace(text=text)
