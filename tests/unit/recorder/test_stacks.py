"""
Asking a process for its stack: who is asked, who is not, and what is read.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path

import pytest

from click.testing import CliRunner

from celery_obs.areas.tasks.commands import stack as command
from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.format import folder_name
from celery_obs.recorder.stack_file import Head, begin_file, catches, read_head, stack_name, started_at
from celery_obs.recorder.stacks import NoStackError, _read, ask
from celery_obs.settings.checks import free_signal, signal_number
from tests.servers import wait_until


NODE = "w@h"

PROGRAM = """
import signal, sys, time
from functools import partial
from pathlib import Path
from celery_obs.runtime.stack_answers import StackAnswers
from tests.unit.recorder.builders import recorder

number, taken = int(sys.argv[2]), sys.argv[3] == "taken"
if taken:
    signal.signal(number, lambda *_: None)
at = recorder(Path(sys.argv[1]), attempts=int(sys.argv[4]))
answers = StackAnswers(number)
at.on_claim.append(partial(answers.claimed, at))
at.open()

def waits_here():
    print("ready", flush=True)
    time.sleep(600)

waits_here()
"""


class Running:
    """
    A process that holds slot 1 of a node.
    """

    def __init__(self, folder: Path, *, taken: bool = False, attempts: int = 1) -> None:
        self.number = signal_number("SIGRTMIN+3")
        arguments = [str(folder), str(self.number), "taken" if taken else "free", str(attempts)]
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.popen.stdout is not None
        poll = select.poll()  # A process with many files open has numbers that select() cannot take.
        poll.register(self.popen.stdout, select.POLLIN)
        assert poll.poll(60_000)
        assert self.popen.stdout.readline() == "ready\n"

    def end(self) -> str:
        """
        End it, and return what it had to say.
        """
        self.popen.kill()
        return self.popen.communicate(timeout=60)[1]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    process = Running(tmp_path)
    yield process
    process.end()


def why_not(folder: Path, number: int = 1, node: str = NODE) -> str:
    with pytest.raises(NoStackError) as caught:
        ask(folder, node, number, patience=1)
    return caught.value.word


def test_a_process_tells_where_it_is_as_often_as_it_is_asked(tmp_path: Path, running: Running) -> None:
    """
    The innermost call comes first, and the file does not grow.
    """
    for _ in range(3):
        found = ask(tmp_path, NODE, 1, patience=60)
        assert found.threads[0].frames[0].endswith("in waits_here")
        assert found.is_whole
    assert (tmp_path / folder_name(NODE) / stack_name(1)).stat().st_size < 4096
    assert running.popen.poll() is None


def test_the_command_prints_the_stack_or_what_to_do(tmp_path: Path, running: Running) -> None:
    """
    For people and for programs; a name that is none is refused with what was expected.
    """
    text = CliRunner().invoke(command, [f"{NODE}/1", "--metrics-dir", str(tmp_path)], catch_exceptions=False).output
    shown = (
        CliRunner().invoke(command, [f"{NODE}/1", "--json", "--all-threads", "--metrics-dir", str(tmp_path)], catch_exceptions=False).output
    )

    assert "It runs no attempt at this moment." in text
    assert " in waits_here" in text
    assert json.loads(shown.splitlines()[-1])["threads"][0]["frames"][0].endswith("in waits_here")
    for name in ("w@h", "w@h/x", "/1", "w@h/-1"):
        with pytest.raises(ConfigurationError, match="is no process"):
            CliRunner().invoke(command, ["--metrics-dir", str(tmp_path), "--", name], catch_exceptions=False)


def test_who_is_not_there_is_not_asked(tmp_path: Path, running: Running) -> None:
    """
    Not an unknown node, not a slot that is free, not a process that ended.
    """
    assert why_not(tmp_path, node="other@h") == "unknown_node"
    assert why_not(tmp_path, 7) == "unknown_process"
    running.end()
    assert why_not(tmp_path) == "unknown_process"


def test_a_process_that_did_not_say_so_itself_gets_no_signal(tmp_path: Path) -> None:
    """
    A process in a slot whose file was written by another one, or whose signal has no handler, would end by the signal: it gets none.
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("at.on_claim", "[]"), str(tmp_path), "40", "free", "1"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        folder = tmp_path / folder_name(NODE)
        assert why_not(tmp_path) == "stacks_off"
        for process in (started_at() + 1, started_at(holder.pid)):
            os.close(begin_file(folder, 1, Head(signal_number("SIGRTMIN+3"), process)))
            assert why_not(tmp_path) == "unknown_process"
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.communicate(timeout=60)


def test_a_stopped_process_does_not_hold_up_who_asks(tmp_path: Path, running: Running) -> None:
    """
    There is no answer in time; one that comes later is not taken for that of the next question.
    """
    running.popen.send_signal(signal.SIGSTOP)
    wait_until(lambda: " T " in Path(f"/proc/{running.popen.pid}/stat").read_text(), within=60, what="the process to be stopped")
    assert why_not(tmp_path) == "no_answer"
    running.popen.send_signal(signal.SIGCONT)
    assert len([frame for frame in ask(tmp_path, NODE, 1, patience=60).threads[0].frames if frame.endswith("in waits_here")]) == 1


def test_a_taken_signal_is_left_alone_and_said_once(tmp_path: Path) -> None:
    """
    The first process says it in its log, the next one in its place does not; the asker is told by both.
    """
    said = []
    for _ in range(2):
        process = Running(tmp_path, taken=True)
        assert why_not(tmp_path) == "stacks_off"
        said.append(process.end())

    assert "SIGRTMIN+3 has a handler already" in said[0]
    assert said[1] == ""


def test_two_who_ask_at_once_are_told_apart(tmp_path: Path, running: Running) -> None:
    """
    The second is asked to come again.
    """
    import fcntl

    with (tmp_path / folder_name(NODE) / stack_name(1)).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert why_not(tmp_path) == "busy"


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"{}\n", b"[]\n", b'{"signal": "9", "process": 1, "threads": false, "refusal": ""}\n', b"\xff\n", b"[" * 900 + b"\n"],
)
def test_a_damaged_file_is_no_answer(tmp_path: Path, content: bytes, running: Running) -> None:
    """
    Whatever lies there, no signal is sent and nothing is raised but a refusal.
    """
    path = tmp_path / folder_name(NODE) / stack_name(1)
    path.write_bytes(content)
    assert why_not(tmp_path) == "stacks_off"


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    """
    A file that was put in its place is replaced, and what it leads to stays.
    """
    target = tmp_path / "precious"
    target.write_text("as it was")
    (tmp_path / stack_name(1)).symlink_to(target)

    descriptor = begin_file(tmp_path, 1, Head(37, 5, threads=True, refusal="because"))
    try:
        assert read_head(descriptor) is not None
        assert read_head(descriptor)[0] == Head(37, 5, threads=True, refusal="because")  # type: ignore[index]
    finally:
        os.close(descriptor)
    assert target.read_text() == "as it was"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGRTMIN", "SIGRTMIN+0", "SIGRTMIN+16", "9", "", "SIGKILL"])
def test_signals_that_have_a_use_are_refused(name: str) -> None:
    """
    Those of Celery, of the pool and of the system are none to choose.
    """
    with pytest.raises(ValueError):  # noqa: PT011 -- the setting says what was expected.
        free_signal(name)


def test_a_free_signal_has_its_number() -> None:
    """
    As the system has it.
    """
    assert signal_number(free_signal("SIGRTMIN+3")) == signal.SIGRTMIN + 3
    assert signal_number(free_signal(" SIGUSR2 ")) == signal.SIGUSR2
    assert catches(int(signal.SIGRTMIN) + 9) is False
    assert started_at(0) == 0


def test_of_two_answers_in_one_file_the_last_is_read() -> None:
    """
    An answer to a question that was given up may come just before that to the next one.
    """
    late = b'Stack (most recent call first):\n  File "/app/old.py", line 1 in before\n'
    own = b'Stack (most recent call first):\n  File "/app/new.py", line 2 in now\n'

    assert _read(7, late + own) == _read(7, own)
    assert _read(7, own).frames == ("/app/new.py:2 in now",)
