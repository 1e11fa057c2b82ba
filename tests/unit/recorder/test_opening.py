"""
The one way to open what lies in a metrics directory.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from collections.abc import Callable
from pathlib import Path

import pytest

from celery_obs.recorder.opening import RefusedError, explain, new_file, open_file, open_folder, open_metrics_dir, read_file, replace_file


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root can give files away.")


def open_descriptors() -> int:
    """
    Count the open files of this process, where the system tells.
    """
    return len(list(Path("/proc/self/fd").glob("*")))


def bind(path: Path) -> None:
    """
    Make a socket.
    """
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a FIFO"),
        (Path.mkdir, "a directory"),
        (bind, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a symbolic link"),
        (lambda path: path.symlink_to("nowhere"), "a symbolic link"),
    ],
    ids=["fifo", "directory", "socket", "link to a device", "link to nothing"],
)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREAT])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object], kind: str, flags: int) -> None:
    """
    Nothing is waited for, and no link is followed; the words say what is there and what to do.
    """
    make(tmp_path / "slot-7")

    with pytest.raises(RefusedError, match=rf"slot-7 is {kind}, where a file was expected\. Remove it\."):
        open_file(tmp_path / "slot-7", flags)


@as_root
def test_a_device_is_refused(tmp_path: Path) -> None:
    """
    Reading /dev/zero would have no end.
    """
    os.mknod(tmp_path / "layout", stat.S_IFCHR | 0o666, os.makedev(1, 5))

    with pytest.raises(RefusedError, match="is a device"):
        open_file(tmp_path / "layout")


def test_what_is_opened_is_not_inherited_and_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    """
    A program that a task starts gets none of our files, and a refusal keeps none open.
    """
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    before = open_descriptors()

    opened = open_file(tmp_path / "file")
    assert not os.get_inheritable(opened)
    os.close(opened)
    for _ in range(10):
        with pytest.raises(RefusedError):
            open_file(tmp_path / "fifo")

    assert before == open_descriptors()


def test_a_new_file_is_never_written_through_a_planted_link(tmp_path: Path) -> None:
    """
    A link in the place of a temporary file goes; what it led to stays as it was.
    """
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for planted in ("heartbeat.new", "slot-0.new"):
        (tmp_path / planted).symlink_to(victim)

    replace_file(tmp_path / "heartbeat", [b"beat"])
    os.close(new_file(tmp_path / "slot-0.new"))

    assert ("precious", "beat") == (victim.read_text(), (tmp_path / "heartbeat").read_text())
    assert (tmp_path / "slot-0.new").is_file()
    assert not (tmp_path / "slot-0.new").is_symlink()


@pytest.mark.parametrize("name", ["heartbeat", "heartbeat.new"])
def test_a_directory_in_the_place_of_a_file_is_said(tmp_path: Path, name: str) -> None:
    """
    It may hold something of a person's, so that it is named and not removed.
    """
    (tmp_path / name).mkdir()

    with pytest.raises(RefusedError, match=rf"{name} is a directory, where a file was expected\. Remove it\."):
        replace_file(tmp_path / "heartbeat", [b"beat"])
    assert (tmp_path / name).is_dir()


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    """
    Whatever happens in the middle, there is one whole file.
    """
    replace_file(tmp_path / "about", [b"old"])

    def parts() -> object:
        yield b"ne"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "about", parts())  # type: ignore[arg-type]  # a generator that ends badly.
    assert ["about"] == [each.name for each in tmp_path.iterdir()]
    assert b"old" == read_file(tmp_path / "about")


def test_a_file_larger_than_expected_is_not_read(tmp_path: Path) -> None:
    """
    Memory is bounded whatever lies there.
    """
    with (tmp_path / "about").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(RefusedError, match="1099511627776 bytes; expected at most 65536"):
        read_file(tmp_path / "about")


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """
    A node's folder may not lead elsewhere.
    """
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "w@host.v1").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(RefusedError, match="is not a directory, or is a link to one"):
        open_folder(tmp_path / "w@host.v1")


@as_root
def test_a_writer_uses_no_folder_of_another_user(tmp_path: Path) -> None:
    """
    Who owns a folder can have each name in it lead to where the writer may write and the owner may not.
    """
    (tmp_path / "w@host.v1").mkdir()
    os.chown(tmp_path / "w@host.v1", 12345, 12345)

    os.close(open_folder(tmp_path / "w@host.v1"))
    with pytest.raises(RefusedError, match="belongs to uid 12345 and not to uid 0"):
        open_folder(tmp_path / "w@host.v1", writes=True)


@pytest.mark.parametrize(("variable", "name"), [("XDG_RUNTIME_DIR", "celery_obs"), ("TMPDIR", f"celery_obs-{os.geteuid()}")])
def test_a_users_own_directory_is_looked_at_by_its_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    """
    In each of the default places one that others can write to is refused; one that a person configured is the person's choice.
    """
    monkeypatch.setenv(variable, str(tmp_path))
    for place in (tmp_path / name, tmp_path / "configured"):
        place.mkdir()
        place.chmod(0o777)

    with pytest.raises(RefusedError, match="is writable by others"):
        open_metrics_dir(tmp_path / name)
    os.close(open_metrics_dir(tmp_path / "configured"))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free disk space there"),
        (errno.EACCES, "Give uid"),
        (errno.EROFS, "file system that can be written"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EIO, "Look at that path"),
    ],
)
def test_an_error_is_said_with_its_path_and_a_remedy(tmp_path: Path, number: int, remedy: str) -> None:
    """
    The line says how to mend it.
    """
    said = explain(OSError(number, os.strerror(number), str(tmp_path / "slot-0")), within=tmp_path)

    assert said.startswith(f"{tmp_path}/slot-0: {os.strerror(number)}. ")
    assert remedy in said


def test_an_error_without_a_path_names_the_folder(tmp_path: Path) -> None:
    """
    Not every call of the system says what it was about.
    """
    assert explain(OSError(errno.ENOSPC, "No space left on device"), within=tmp_path).startswith(f"{tmp_path}: No space left")
