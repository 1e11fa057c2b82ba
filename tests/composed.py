"""
What lies under deploy/compose, otel, loki and tempo, as containers get it: variables filled in, overlays laid over.
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


__all__ = ["APP_IMAGE", "COMPOSE", "DEPLOY", "FOLDER", "ROOT", "SERVICES", "collector", "filled", "loaded"]


ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
FOLDER = DEPLOY / "compose"


def filled(text: str, variables: Mapping[str, str] = {}) -> str:
    """
    Put values, or their defaults, in the place of variables, and a single dollar in the place of two, as compose and the collector do.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        return "$" if match[0] == "$$" else variables.get(name, default or "")

    return re.sub(r"\$\$|\$\{(?:env:)?(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", value, text)


def loaded(path: Path, variables: Mapping[str, str] = {}) -> Any:
    """
    Read a file of YAML, with its variables filled in.
    """
    return yaml.safe_load(filled(path.read_text(), variables))


COMPOSE: dict[str, Any] = loaded(FOLDER / "compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
APP_IMAGE: str = SERVICES["worker"]["image"]


def merged(base: Any, overlay: Any) -> Any:
    """
    Lay one configuration over another as the collector does: maps are merged, all else is replaced.
    """
    if isinstance(base, dict) and isinstance(overlay, dict):
        return {key: merged(base.get(key), overlay[key]) if key in overlay else base[key] for key in {**base, **overlay}}
    return overlay


def collector(*, contrib: bool = True) -> dict[str, Any]:
    """
    Return the collector's configuration as it is in the container, with or without the overlay.
    """
    environ = SERVICES["otel-collector"]["environment"]
    environ = {name: str(value) for name, value in environ.items()}
    config = loaded(DEPLOY / "otel/collector.yml", environ)
    if contrib:
        config = merged(config, loaded(DEPLOY / "otel/contrib.yml", environ))
    assert isinstance(config, dict)
    return config
