"""
The pods of deploy/kubernetes, played on this machine: their very commands, variables and probes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import RedisServer, free_port, wait_until
from tests.workers import Process


pytestmark = pytest.mark.integration

BASE = Path(__file__).parents[2] / "deploy/kubernetes/base"
PROGRAMS = {"celery": [sys.executable, "-m", "celery"], "celery-obs": [sys.executable, "-m", "celery_obs.cli"]}


class Container(Process):
    """
    A container, with what Kubernetes would give it.

    Args:
        spec: What the manifest says of it.

        environ: What its config map and its secrets hold, by the names of variables.

        folder: Where its output goes.
    """

    def __init__(self, spec: Mapping[str, Any], environ: Mapping[str, str], folder: Path) -> None:
        self.spec = spec
        self.environ = {**environ, **{variable["name"]: self._secret(variable, environ) for variable in spec["env"]}}
        self.environ = {name: value for name, value in self.environ.items() if value}
        super().__init__(self.filled_in(spec["command"]), log=folder / f"{spec['name']}.log", environ=self.environ)

    @staticmethod
    def _secret(variable: Mapping[str, Any], environ: Mapping[str, str]) -> str:
        source = variable["valueFrom"]["secretKeyRef"]
        return environ["TEST_BROKER"] if ("celery-broker", "url") == (source["name"], source["key"]) else ""

    def filled_in(self, command: list[str]) -> list[str]:
        """
        Put variables in their places, and a program of this environment in the place of the image's.
        """
        program, *words = [re.sub(r"\$\((\w+)\)", lambda found: self.environ[found[1]], word) for word in command]
        return [*PROGRAMS[program], *words]

    def passes(self, probe: str) -> bool:
        """
        Run one of its probes.
        """
        asked = self.spec[f"{probe}Probe"]
        if "httpGet" in asked:
            port = self.environ["CELERY_OBS_WEB_LISTEN_ADDRESS"].rpartition(":")[2]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{asked['httpGet']['path']}", timeout=10) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False
        command = self.filled_in(asked["exec"]["command"])
        return 0 == subprocess.run(command, env=self._environ, capture_output=True, check=False).returncode


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_pod_comes_up_shows_what_it_does_and_goes(tmp_path: Path, name: str) -> None:
    """
    The sidecar starts first and passes its probes, then the worker or beat its own; the page shows it; at the end the sidecar is still there.
    """
    port = free_port()
    pod = yaml.safe_load((BASE / f"{name}.yaml").read_text())["spec"]["template"]["spec"]
    [config] = yaml.safe_load((BASE / "kustomization.yaml").read_text())["configMapGenerator"]
    with RedisServer() as redis:
        environ = dict(literal.split("=", 1) for literal in config["literals"]) | {
            "CELERY_APP": "observed",
            "CELERY_OBS_METRICS_DIR": str(tmp_path / "metrics"),
            "CELERY_OBS_WEB_LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "TEST_BROKER": redis.url,
            "TEST_LEDGER": redis.url,
        }
        (tmp_path / "metrics").mkdir()
        with (
            Container(pod["initContainers"][0], environ, tmp_path) as sidecar,
            Container(_with_schedule_in(pod["containers"][0], tmp_path), environ, tmp_path) as main,
        ):
            for container, probe in [
                (sidecar, "startup"),
                (sidecar, "liveness"),
                (main, "startup"),
                (main, "readiness"),
                (main, "liveness"),
            ]:
                wait_until(lambda: container.passes(probe), within=60, what=f"{container.spec['name']} to pass {probe}")  # noqa: B023 -- at once.
            wait_until(lambda: re.search(rf"celery_{name}_\w+.* \d", _page(port)), what="the page to show it")

            assert 0 == main.stop()
            assert not main.passes("liveness")
            assert sidecar.passes("liveness")
            assert 0 == sidecar.stop()


def _with_schedule_in(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """
    Let beat keep its schedule where this test alone does.
    """
    return {**spec, "command": [str(folder / "schedule") if word == "/tmp/schedule" else word for word in spec["command"]]}  # noqa: S108 -- the pod's.


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
