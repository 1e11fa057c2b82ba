"""
The metrics directory: where it is when nobody says, and how it is made.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import stat
import tempfile

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .exceptions import ConfigurationError


__all__ = ["FALLBACK", "default_metrics_dir", "fallback_name", "look_at_metrics_dir", "prepare_metrics_dir", "use_temporary_metrics_dir"]


FALLBACK: Final = "_CELERY_OBS_TESTS_METRICS_DIR"
"""
The variable by which tests say, to processes that they start as well, where the default directory is.  No setting: what is configured wins over it.
"""


def default_metrics_dir(environ: Mapping[str, str]) -> Path:
    """
    Work out this user's own metrics directory: in ``XDG_RUNTIME_DIR`` where that is set and writable, else in the temporary directory.
    """
    if environ.get(FALLBACK):
        return Path(environ[FALLBACK])
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime).absolute() / "celery_obs"
    return _shared_default(environ)


def fallback_name() -> str:
    """
    Make a name for the directory of one run of tests; hard to guess, for it lies where all users may make directories.
    """
    return f"celery_obs-tests-{secrets.token_hex(8)}"


def use_temporary_metrics_dir() -> Path:
    """
    Have this process, and those that it starts, write to a directory that goes with it, where nothing else is configured.

    For tests, which are to leave nothing where real workers write.
    """
    path = Path(tempfile.gettempdir()).absolute() / fallback_name()
    os.environ[FALLBACK] = str(path)
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: Path, pid: int) -> None:
    if os.getpid() == pid:  # Not in a child that was forked with this to do.
        shutil.rmtree(path, ignore_errors=True)


def _shared_default(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("TMPDIR") or tempfile.gettempdir()).absolute() / f"celery_obs-{os.geteuid()}"


def prepare_metrics_dir(path: Path) -> Path:
    """
    Make the metrics directory if it is missing, and make sure that this process can write there.

    The default place lies in a directory that all users share: there it is made for its owner alone (0700),
    and refused when it is somebody else's or a symbolic link.

    Raises:
        ConfigurationError: naming the directory, the user and what to do.
    """
    ours_alone = path.name == f"celery_obs-{os.geteuid()}"
    try:
        if ours_alone:
            path.mkdir(mode=0o700, exist_ok=True)
            _refuse_planted(path)
        else:
            path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise _unusable(path, "is no directory", "Remove it, or name another place.") from None
    except OSError as error:
        raise _unusable(path, f"cannot be made by uid {os.geteuid()} ({error.strerror})", "Create it before the worker starts.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(path, f"is not writable by uid {os.geteuid()}", "Create it before the worker starts.")
    return path


def look_at_metrics_dir(path: Path) -> bool:
    """
    Tell whether the metrics directory is there, without making it.

    Raises:
        ConfigurationError: as `prepare_metrics_dir` would, where this process could not make it, or not use it.
    """
    try:
        found = path.stat()
    except OSError:
        if path.is_symlink():
            raise _unusable(path, "is a symbolic link that leads nowhere", "Remove it, or name another place.") from None
        parent = next((each for each in path.absolute().parents if os.path.lexists(each)), Path("/"))
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise _unusable(path, f"cannot be made by uid {os.geteuid()}", "Create it before the worker starts.") from None
        return False
    if path.name == f"celery_obs-{os.geteuid()}":
        _refuse_planted(path)
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(path, "is no directory", "Remove it, or name another place.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(path, f"is not writable by uid {os.geteuid()}", "Create it before the worker starts.")
    return True


def _refuse_planted(path: Path) -> None:
    found = path.lstat()
    advice = "Somebody else may have put it there. Remove it, or name another place."
    if stat.S_ISLNK(found.st_mode):
        raise _unusable(path, "is a symbolic link in a directory that all users share", advice)
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(path, "is no directory", advice)
    if found.st_uid != os.geteuid():
        raise _unusable(path, f"belongs to uid {found.st_uid} and not to uid {os.geteuid()}", advice)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(path, f"is writable by others (mode {stat.S_IMODE(found.st_mode):04o})", f"Make it yours alone: chmod 700 {path}")


def _unusable(path: Path, problem: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"CELERY_OBS_METRICS_DIR is {path}, which {problem}. {advice}")
