"""
One way to open a metrics directory and the files in it, for all who write or read there.

What is opened is looked at through its descriptor, so that nothing can be put in its place between the look and the use:
a link, a pipe, a device or a directory in the place of a file is refused, never followed and never waited for.
A directory that is meant for one user alone has to be that user's, and writable to no other.

Loads little, for a probe starts anew every few seconds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


__all__ = [
    "FALLBACK",
    "RefusedError",
    "allocate",
    "closing",
    "explain",
    "is_for_one_user",
    "new_file",
    "open_file",
    "open_folder",
    "open_metrics_dir",
    "read_file",
    "replace_file",
]


FALLBACK: Final = "_CELERY_OBS_TESTS_METRICS_DIR"
"""
The variable by which tests say, to processes that they start as well, where the default directory is.  No setting: what is configured wins over it.
"""

_SAFE: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SMALL: Final = 64 * 1024
_PLANTED: Final = "Another user may have put it there. Remove it, or set CELERY_OBS_METRICS_DIR to another place."
_TRIES: Final = 3
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class RefusedError(OSError):
    """
    Something in a metrics directory, or the directory, is not what may be opened.

    Args:
        path: What was refused.

        problem: Why, as the end of a sentence that begins with the path.

        advice: What to do.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, advice: str) -> None:
        super().__init__(errno.EINVAL, problem, os.fspath(path))
        self.problem, self.advice = problem, advice

    def __str__(self) -> str:
        return f"{self.filename} {self.problem}. {self.advice}"


# -- directories --------------------------------------------------------------------------------------------------------


def is_for_one_user(path: str | os.PathLike[str]) -> bool:
    """
    Tell whether *path* is where a user's own metrics directory is when none is configured.
    """
    given = os.path.abspath(path)  # noqa: PTH100 -- pathlib costs a third of a probe's time.
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return (
        os.path.basename(given) == f"celery_obs-{os.geteuid()}"  # noqa: PTH119 -- as above.
        or given == os.environ.get(FALLBACK)
        or bool(runtime and given == os.path.join(os.path.abspath(runtime), "celery_obs"))  # noqa: PTH100, PTH118 -- as above.
    )


def open_metrics_dir(path: str | os.PathLike[str]) -> int:
    """
    Open a metrics directory and return its descriptor, which the caller closes.

    Raises:
        RefusedError: if it is for one user alone, and planted by another, or another can write to it.

        OSError: if it is missing, is not a directory, or cannot be read.
    """
    if not is_for_one_user(path):
        return os.open(path, _FOLDER)
    try:
        descriptor = os.open(path, _FOLDER | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and os.path.islink(path):  # noqa: PTH114 -- as above.
            raise RefusedError(path, "is a symbolic link in a directory that all users share", _PLANTED) from None
        raise
    with _closed_on_error(descriptor):
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise RefusedError(path, f"belongs to uid {found.st_uid} and not to uid {os.geteuid()}", _PLANTED)
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            advice = f"Make it yours alone: chmod 700 {path}"
            raise RefusedError(path, f"is writable by others (mode {stat.S_IMODE(found.st_mode):04o})", advice)
    return descriptor


def open_folder(path: str | os.PathLike[str], *, writes: bool = False) -> int:
    """
    Open a node's folder and return its descriptor, which the caller closes.

    Args:
        path: The folder.

        writes: Whether the caller makes files there.  Then it has to belong to the caller, or to root: who owns a folder chooses what a name leads to.

    Raises:
        RefusedError: if it is a link or no directory, or another's.

        OSError: if it is not there or cannot be read.
    """
    try:
        descriptor = os.open(path, _FOLDER | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise RefusedError(path, "is not a directory, or is a link to one", "Remove it.") from None
        raise
    with _closed_on_error(descriptor):
        owner = os.fstat(descriptor).st_uid
        if writes and owner not in {os.geteuid(), 0}:
            advice = f"Start this process as uid {owner}, or remove that folder."
            raise RefusedError(path, f"belongs to uid {owner} and not to uid {os.geteuid()}", advice)
    return descriptor


# -- files --------------------------------------------------------------------------------------------------------------


def open_file(path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, dir_fd: int | None = None) -> int:
    """
    Open a regular file and return its descriptor, which the caller closes.  Never waits, and never follows a link.

    Args:
        path: The file.

        flags: As for ``os.open``.

        dir_fd: The descriptor of the folder that it is in: only the last part of *path* is looked up then.

    Raises:
        RefusedError: if something else than a file is there.

        OSError: if it cannot be opened.
    """
    where = path if dir_fd is None else os.path.basename(path)  # noqa: PTH119 -- as above.
    try:
        descriptor = os.open(where, flags | _SAFE, 0o644, dir_fd=dir_fd)
    except OSError as error:
        kind = _kind_of(where, dir_fd) if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO} else ""
        if kind:
            raise _no_file(path, kind) from None
        error.filename = os.fspath(path)
        raise
    with _closed_on_error(descriptor):
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise _no_file(path, _kind(mode))
    return descriptor


def new_file(path: str | os.PathLike[str], *, mode: int = 0o644) -> int:
    """
    Make a file that was not there, for writing and reading; return its descriptor, which the caller closes.

    What is in its place, such as what a process left that died in the middle of this, is removed: a link, and not what it leads to.

    Raises:
        OSError: if it cannot be made.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):
            _remove(path)
        with contextlib.suppress(FileExistsError):  # Put there at this very moment.
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, mode)
    raise RefusedError(path, "is created again and again by another process", "Find out which one, and stop it.")


def read_file(path: str | os.PathLike[str], *, most: int = _SMALL, dir_fd: int | None = None) -> bytes:
    """
    Return what a file holds.

    Raises:
        RefusedError: if it is not a file, or is larger than *most* bytes.

        OSError: if it cannot be read.
    """
    descriptor = open_file(path, dir_fd=dir_fd)
    try:
        size = os.fstat(descriptor).st_size
        if size > most:
            raise RefusedError(path, f"has {size} bytes; expected at most {most}", "Remove it.")
        parts = []
        while size > 0 and (part := os.read(descriptor, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def replace_file(path: str | os.PathLike[str], parts: Iterable[bytes], *, mode: int = 0o644, durable: bool = False) -> None:
    """
    Put *parts* in the place of what the file at *path* held: at every moment one of the two is there, whole.

    Args:
        path: The file.  One process at a time may do this.

        parts: What it is to hold.

        mode: The rights of the new file.

        durable: Whether it has to outlive a failure of power.

    Raises:
        OSError: if that cannot be done; the old file is as it was.
    """
    fresh = f"{os.fspath(path)}.new"
    descriptor = new_file(fresh, mode=mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 -- it is a descriptor.
            file.writelines(parts)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, path)  # noqa: PTH105 -- as above.
    except OSError as error:
        with contextlib.suppress(OSError):
            _remove(fresh)
        if error.errno == errno.EISDIR:
            raise _no_file(path, "a directory") from None
        error.filename, error.filename2 = os.fspath(path), None
        raise


def allocate(descriptor: int, start: int, size: int) -> None:
    """
    Take the disk space of these bytes of an open file now: a store into a hole of a full disk would end the process with SIGBUS.

    Raises:
        OSError: when the disk is full.
    """
    try:
        os.posix_fallocate(descriptor, start, size)
    except AttributeError:  # macOS has no posix_fallocate.
        _fill(descriptor, start, size)
    except OSError as exc:
        if exc.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise
        _fill(descriptor, start, size)


def _fill(descriptor: int, start: int, size: int) -> None:
    """
    Write what is there once more: a hole becomes zeros, the rest stays as it is.
    """
    there = os.pread(descriptor, size, start)
    if os.pwrite(descriptor, there.ljust(size, b"\0"), start) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(path: str | os.PathLike[str]) -> None:
    try:
        os.unlink(path)  # noqa: PTH108 -- as above.
    except (IsADirectoryError, PermissionError):
        if _kind_of(path, None) == "a directory":
            raise _no_file(path, "a directory") from None
        raise


@contextlib.contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


def _no_file(path: str | os.PathLike[str], kind: str) -> RefusedError:
    return RefusedError(path, f"is {kind}, where a file was expected", "Remove it.")


def _kind_of(path: str | os.PathLike[str], dir_fd: int | None) -> str:
    try:
        return _kind(os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except OSError:
        return ""


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "")


# -- words --------------------------------------------------------------------------------------------------------------

_REMEDIES: Final = {
    errno.EDQUOT: "Raise the quota, or free disk space there.",
    errno.EROFS: "Set metrics_dir to a file system that can be written.",
    errno.EISDIR: "Remove it.",
    errno.ENOTDIR: "Remove what is not a directory on that path.",
    errno.EEXIST: "Remove it.",
    errno.ENXIO: "Remove it.",
    errno.ELOOP: "Remove it.",
    errno.ENOENT: "Make the directory again.",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f).",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENFILE: "Raise the system's limit of open files.",
    errno.ENOLCK: "Set metrics_dir to a file system that has locks.",
}


def explain(error: BaseException, *, within: str | os.PathLike[str]) -> str:
    """
    Say on one line what *error*, met in the folder *within*, is about: the path, the reason and the remedy.
    """
    if not isinstance(error, OSError) or isinstance(error, RefusedError) or error.strerror is None:
        return " ".join(str(error).split()) or type(error).__name__
    path = error.filename if isinstance(error.filename, (str, bytes)) else within
    return f"{os.fsdecode(path)}: {error.strerror}. {_remedy(error, within)}"


def _remedy(error: OSError, within: str | os.PathLike[str]) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"Give uid {os.geteuid()} the right to write there, or set metrics_dir to another place."
    if error.errno == errno.ENOSPC:
        return "The file system has no inodes left: remove files there." if _has_no_inodes(within) else "Free disk space there."
    return _REMEDIES.get(error.errno or 0, "Look at that path, or set metrics_dir to another place.")


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """
    Close an open file at the end of a block.
    """
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _has_no_inodes(within: str | os.PathLike[str]) -> bool:
    try:
        found = os.statvfs(within)
    except OSError:
        return False
    return found.f_files > 0 and found.f_favail == 0
