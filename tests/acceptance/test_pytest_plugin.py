"""
The pytest plugin, in sessions of its own: the page about it followed to the letter, and what a session leaves behind.
"""

from __future__ import annotations

import os
import subprocess
import sys

from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.pages import DOCS, write_files


pytestmark = pytest.mark.integration

PAGE = DOCS / "how-to" / "test-your-tasks.md"


def session(folder: Path, *arguments: str, **environ: str) -> tuple[int, str]:
    """
    Run pytest in *folder*, with a temporary directory of its own below it; return its exit code and what it wrote.
    """
    (folder / "tmp").mkdir(exist_ok=True)
    known = any(each.name == "celery_obs" for each in entry_points(group="pytest11"))
    plugins = ("-p", "no:cloudcoil", *(() if known else ("-p", "celery_obs.testing_plugin")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **{name: value for name, value in os.environ.items() if "CELERY_OBS" not in name},
            "TMPDIR": str(folder / "tmp"),
            "XDG_RUNTIME_DIR": "",
            **environ,
        },
    )
    return done.returncode, done.stdout + done.stderr


def left(folder: Path) -> list[str]:
    """
    Return what is left where metric files go when nothing is configured.
    """
    return [path.name for path in (folder / "tmp").iterdir() if path.name.startswith("celery_obs")]


MORE = """
import os
import sys

import pytest

import celery_obs
import shop

from celery_obs.areas.tasks.events import TaskFinished


def test_what_is_configured_stays():
    from celery_obs.settings import load

    assert "/configured" == str(load({"celery_obs": {"metrics_dir": "/configured"}}, os.environ, {}).metrics_dir)


def test_assertions_show_what_came(obs_events):
    with pytest.raises(AssertionError, match=r"Expected one TaskFinished\\(task='shop.order'\\), found 0. Events of that type: none."):
        obs_events.only(TaskFinished, task="shop.order")


def test_what_was_recorded_before_is_not_counted(obs_samples):
    with pytest.raises(AssertionError, match="Expected 1 of celery_task_finished_total"):
        obs_samples.wait_for(1, "celery_task_finished_total", within=0.1, task="shop.order")


def test_a_worker_of_its_own_is_seen(obs_samples, tmp_path):
    import subprocess

    (tmp_path / "one.py").write_text("import shop, celery_obs; shop.order.delay(1)")
    subprocess.run([sys.executable, str(tmp_path / "one.py")], check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})

    obs_samples.wait_for(1, "celery_task_published_total", task="shop.order")
"""


def test_the_page_on_testing_works_and_leaves_nothing(tmp_path: Path) -> None:
    """
    Celery's own fixtures, events and samples; what other processes recorded, and nothing from before the test.
    """
    write_files(PAGE, tmp_path)
    (tmp_path / "test_more.py").write_text(MORE)

    code, said = session(tmp_path)

    assert 0 == code, said
    assert "6 passed" in said
    assert [] == left(tmp_path)


@pytest.mark.faults
def test_each_process_of_xdist_is_for_itself(tmp_path: Path) -> None:
    """
    Two processes count the same task at the same time, and each sees its own.
    """
    write_files(PAGE, tmp_path)
    test = (tmp_path / "test_shop.py").read_text()
    (tmp_path / "test_shop_again.py").write_text(test)

    code, said = session(tmp_path, "-n2", "--dist=loadfile")

    assert 0 == code, said
    assert "4 passed" in said
    assert [] == left(tmp_path)


@pytest.mark.faults
def test_a_session_without_the_plugin_shows_what_it_is_good_for(tmp_path: Path) -> None:
    """
    Left out by ``-p no:celery_obs``, the worker of a test writes to the directory of the user.
    """
    write_files(PAGE, tmp_path)
    (tmp_path / "test_shop.py").write_text(
        "import shop\n\ndef test_order(celery_worker):\n    assert 1 == shop.order.delay(1).get(timeout=10)\n"
    )

    code, said = session(tmp_path, "-p", "no:celery_obs", "-p", "no:celery_obs.testing_plugin")

    assert 0 == code, said
    assert [f"celery_obs-{os.geteuid()}"] == left(tmp_path)


def test_a_suite_that_uses_nothing_of_ours_loads_nothing_of_ours(tmp_path: Path) -> None:
    """
    The plugin imports neither Celery nor what reads metric files.
    """
    (tmp_path / "test_it.py").write_text(
        "import sys\n\ndef test_it():\n    assert not {'celery', 'kombu', 'prometheus_client', 'celery_obs.runtime.plugin', 'celery_obs.testing'} & set(sys.modules)\n"
    )

    code, said = session(tmp_path, "-p", "no:hypothesispytest", "-p", "no:schemathesis", "-p", "no:celery", "-p", "no:cloudcoil")

    assert 0 == code, said
    assert [] == left(tmp_path)
