"""
The metrics directory: where it is by default, and how it is made.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from celery_obs.exceptions import ConfigurationError

from .opening import FALLBACK, RefusedError, is_for_one_user, open_metrics_dir


__all__ = [
    "FALLBACK",
    "HISTORY",
    "default_metrics_dir",
    "fallback_name",
    "look_at_metrics_dir",
    "prepare_metrics_dir",
    "use_temporary_metrics_dir",
]


HISTORY: Final = "history"
"""
The file of the sidecar's history, beside the nodes' folders.
"""


def default_metrics_dir(environ: Mapping[str, str]) -> Path:
    """
    Work out this user's own metrics directory: in ``XDG_RUNTIME_DIR`` where that is this user's own, else in the temporary directory.
    """
    if environ.get(FALLBACK):
        return Path(environ[FALLBACK])
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and _is_own(runtime):
        return Path(runtime).absolute() / "celery_obs"
    return _shared_default(environ)


def _is_own(directory: str) -> bool:
    """
    Tell whether a directory is this user's, and writable to no other: after ``su`` or ``sudo -E`` the variable still names the one of before.
    """
    try:
        found = os.stat(directory)  # noqa: PTH116 -- one look, for owner and mode.
    except OSError:
        return False
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & others
        and os.access(directory, os.W_OK | os.X_OK)
    )


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

    The default place may lie in a directory that all users share: it is made for its owner alone (0700), closed to others where it was open to them,
    and refused when it is another user's, a symbolic link, or writable by others.

    Raises:
        ConfigurationError: naming the directory, the user and what to do.
    """
    try:
        if is_for_one_user(path):
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            _close_to_others(path)
        else:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(path, error) from (None if isinstance(error, RefusedError) else error)
    _need_writable(path)
    return path


def look_at_metrics_dir(path: Path) -> bool:
    """
    Tell whether the metrics directory is there, without making it.

    Raises:
        ConfigurationError: as `prepare_metrics_dir` would, where this process could not make it, or not use it.
    """
    try:
        os.close(open_metrics_dir(path))
    except FileNotFoundError:
        if path.is_symlink():
            raise _unusable(path, "is a dangling symbolic link", "Remove it, or name another place.") from None
        parent = next((each for each in path.absolute().parents if os.path.lexists(each)), Path("/"))
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise _unusable(path, f"cannot be made by uid {os.geteuid()}", "Create it before the worker starts.") from None
        return False
    except PermissionError:
        raise _unusable(path, f"cannot be read by uid {os.geteuid()}", "Run this as the user that the workers run as.") from None
    except OSError as error:
        raise _refusal(path, error) from None
    _need_writable(path)
    return True


def _close_to_others(path: Path) -> None:
    descriptor = open_metrics_dir(path)
    try:
        if os.fstat(descriptor).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def _need_writable(path: Path) -> None:
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unusable(path, f"is not writable by uid {os.geteuid()}", "Create it before the worker starts.")


def _refusal(path: Path, error: OSError) -> ConfigurationError:
    if isinstance(error, RefusedError):
        return _unusable(path, error.problem, error.advice)
    if error.errno in {errno.EEXIST, errno.ENOTDIR} and os.path.lexists(path):
        return _unusable(path, "is not a directory", "Remove it, or name another place.")
    return _unusable(path, f"cannot be made by uid {os.geteuid()} ({error.strerror})", "Create it before the worker starts.")


def _unusable(path: Path, problem: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"CELERY_OBS_METRICS_DIR is {path}, which {problem}. {advice}")
