"""
An installation of celery_obs without extras, played inside one that has them all: what no core dependency brings cannot be imported.
"""

from __future__ import annotations

import json
import os

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


__all__ = ["extras_only", "without_extras"]


_BLOCKER = """
import sys

class Absent:
    names = frozenset({names})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def _core(name: str, extras: frozenset[str] = frozenset(), seen: dict[str, frozenset[str]] | None = None) -> set[str]:
    """
    Return the names of what `pip install NAME[EXTRAS]` brings.
    """
    known = {} if seen is None else seen
    key = canonicalize_name(name)
    if extras <= known.get(key, frozenset()) and key in known:
        return set(known)
    known[key] = known.get(key, frozenset()) | extras
    for text in metadata.requires(name) or ():
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            _core(needed.name, frozenset(needed.extras), known)
    return set(known)


def extras_only() -> frozenset[str]:
    """
    Return the modules that a plain `pip install celery_obs` does not bring.
    """
    core = _core("celery_obs")
    return frozenset(
        module
        for module, distributions in metadata.packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & core
    )


def without_extras(folder: Path) -> dict[str, str]:
    """
    Return an environment whose Python starts without them; what makes it so is written to *folder*.
    """
    names = json.dumps(sorted(extras_only()))
    (folder / "sitecustomize.py").write_text(_BLOCKER.format(names=names), encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
