"""
The wheel: made of this checkout, it has what `celery-obs deploy` writes, and nothing that is private.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

from pathlib import Path

import pytest

from celery_obs.rules.shipped import PARTS, shipped


pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SOURCES = ("celery_obs", "deploy", "docs", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
PRIVATE = ("deploy/compose/secrets/redis-password", "deploy/compose/.env", "deploy/compose/compose.override.yml")


def copy_of_the_sources(folder: Path, names: tuple[str, ...] = SOURCES) -> Path:
    """
    Copy what a build needs, and not what the machine's developer has beside it.
    """
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("secrets", ".env", "*.override.yml", "__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def build(source: Path, out: Path) -> tuple[Path, Path]:
    """
    Build the wheel and the archive of sources, without an index.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    [wheel], [archive] = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """
    Build a checkout in which compose was run: passwords lie beside the files.
    """
    source = copy_of_the_sources(tmp_path_factory.mktemp("checkout"))
    for name in PRIVATE:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("hunter2", encoding="utf-8")
    return build(source, tmp_path_factory.mktemp("dist"))


def test_the_wheel_has_every_file_that_deploy_writes(built: tuple[Path, Path], tmp_path: Path) -> None:
    """
    Installed from it, one command writes the files of the checkout, each as it is here.
    """
    wheel, _ = built
    site, out = tmp_path / "site", tmp_path / "out"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, env={**os.environ, "PIP_CONSTRAINT": ""})
    # In front of whatever else there is of the package, in a folder without a checkout.
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); from celery_obs.cli import main; main()"]
    arguments = ["deploy", "--out", str(out), "--channels", "--only", ",".join(PARTS)]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    written = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    here = {output.path: output for output in shipped(tuple(PARTS), channels=True)}
    assert here.keys() == written.keys()
    for path, output in here.items():
        assert (output.text, output.executable) == (written[path].read_text("utf-8"), os.access(written[path], os.X_OK)), path


def test_neither_wheel_nor_archive_has_what_is_private(built: tuple[Path, Path]) -> None:
    """
    Passwords that `prepare` made in the checkout are not published with it.
    """
    wheel, archive = built
    with zipfile.ZipFile(wheel) as zipped, tarfile.open(archive) as tarred:
        names = [*zipped.namelist(), *tarred.getnames()]

    private = {Path(name).name for name in PRIVATE}
    assert [] == [name for name in names if Path(name).name in private or "secrets" in Path(name).parts]
    assert any(name.endswith("_shipped/deploy/compose/compose.yml") for name in names)


@pytest.mark.faults
def test_the_archive_of_sources_makes_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """
    A build from it has all files, too.
    """
    wheel, archive = built
    with tarfile.open(archive) as tarred:
        tarred.extractall(tmp_path / "unpacked", filter="data")
    [source] = (tmp_path / "unpacked").iterdir()
    again, _ = build(source, tmp_path / "dist")

    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


@pytest.mark.faults
def test_the_image_of_compose_is_built_from_less(tmp_path: Path) -> None:
    """
    Its Dockerfile copies neither deploy nor docs; the package that is made of the rest has no such files, and all else.
    """
    source = tmp_path / "context"
    source.mkdir()
    copy_of_the_sources(source, ("celery_obs", "pyproject.toml", "README.md", "LICENSE"))
    wheel, _ = build(source, tmp_path / "dist")

    with zipfile.ZipFile(wheel) as zipped:
        names = zipped.namelist()
    assert "celery_obs/cli/deploy.py" in names
    assert not [name for name in names if "_shipped" in name]
