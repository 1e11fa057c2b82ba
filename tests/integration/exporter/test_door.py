"""
The exporter's door, attacked over real sockets: crowds, slow clients, guessed passwords, foreign host names, spoiled configurations.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import resource
import select
import shlex
import signal
import socket
import sys
import threading
import time

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import httpx
import pytest

from celery_obs.exporter.door import DEADLINES, KEEP_ALIVE, MOST_CONNECTIONS
from celery_obs.exporter.passwords import MOST_WAITING
from tests.certificates import Authority
from tests.exporters import EXPORTER, Exporter, running
from tests.servers import RedisServer, free_port, wait_until


if TYPE_CHECKING:
    from typing_extensions import Self


pytestmark = pytest.mark.integration

ASKED = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"GET /metrics HTTP/1.1\r\nHost: loc"

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "run-the-sidecar.md"

HURRIED = (
    sys.executable,
    "-c",
    """
import celery_obs.exporter.door as door
from celery_obs.cli.exporter import exporter
door.DEADLINES.update({stage: seconds / 10 for stage, seconds in door.DEADLINES.items()})
exporter()
""",
)
"""
The exporter with a tenth of its patience.
"""


class Crowd:
    """
    Many connections of one client; closed on leaving.
    """

    def __init__(self, exporter: Exporter) -> None:
        self._address = ("127.0.0.1", exporter.port)
        self.sockets: list[socket.socket] = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))

    def join(self, how_many: int, *says: bytes) -> None:
        """
        Connect so many more, of which each says all of *says*, and reads an answer in between.
        """
        new = [socket.create_connection(self._address, timeout=10) for _ in range(how_many)]
        self.sockets += new
        for number, words in enumerate(says):
            for each in new:
                with contextlib.suppress(OSError):  # It may be closed already.
                    each.sendall(words)
            for each in new if number < len(says) - 1 else ():
                with contextlib.suppress(OSError):
                    each.recv(4096)

    def answered(self) -> list[socket.socket]:
        """
        Return those on which there is something to read, or that were closed.
        """
        poll = select.poll()  # A process with many files open has numbers that select() cannot take.
        for each in self.sockets:
            poll.register(each, select.POLLIN)
        ready = {number for number, _ in poll.poll(0)}
        return [each for each in self.sockets if each.fileno() in ready]

    def left(self) -> int:
        """
        Count those that were not closed by the other side.
        """
        return sum(not is_closed(each) for each in self.sockets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.sockets:
            each.close()


def is_closed(connection: socket.socket) -> bool:
    """
    Tell whether the other side has closed *connection*; what it says before that is read and dropped.
    """
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while poll.poll(0):
        try:
            if not connection.recv(65536):
                return True
        except OSError:
            return True
    return False


def get(exporter: Exporter, path: str = "/metrics", **more: object) -> httpx.Response:
    # Certificates are not verified: those of all authorities take longer to load than the answer takes.
    options = {"trust_env": False, "verify": False, "timeout": 30, **more}
    with httpx.Client(**options) as client:  # type: ignore[arg-type]  # Passed on as they come.
        return client.get(exporter.url + path)


def timed(exporter: Exporter, path: str = "/metrics", **more: object) -> tuple[int, float]:
    """
    Return the status of an answer, and the seconds that it took, 0 and the seconds where there was none.
    """
    begin = time.monotonic()
    try:
        status = get(exporter, path, **more).status_code
    except httpx.TransportError:
        status = 0
    return status, time.monotonic() - begin


def one_by_one(scrapes: list[tuple[int, float]]) -> list[int]:
    """
    Return the statuses, with -1 for each that took two seconds or more.
    """
    return [status if took < 2 else -1 for status, took in scrapes]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def users_file(path: Path, *, cost: int) -> Path:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode()
    path.write_text(f"basic_auth_users: {{prometheus: {hashed}}}\n")
    return path


@pytest.fixture(scope="module")
def tls_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    Authority(made).issue("server")
    config = made / "web.yml"
    config.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
    return config


# -- crowds and slow clients ------------------------------------------------------------------------------------------


def test_a_crowd_that_sends_half_requests_does_not_keep_the_scraper_out(tmp_path: Path) -> None:
    """
    More connections than there is room for have asked once and then send half a request; each scrape is answered within two seconds.
    """
    with running(tmp_path) as exporter, Crowd(exporter) as crowd:
        crowd.join(505, ASKED, HALF)
        scrapes = []
        for _ in range(4):
            crowd.join(20, HALF)
            scrapes.append(timed(exporter))

    assert [200] * 4 == one_by_one(scrapes), scrapes


@pytest.mark.faults
def test_a_crowd_that_stays_for_two_minutes_does_not_keep_the_scraper_out(tmp_path: Path) -> None:
    """
    505 connections that asked once send half a request, 20 more come every seven seconds, those that were closed come again: 18 of 18 scrapes.
    """
    with running(tmp_path) as exporter, Crowd(exporter) as crowd:
        crowd.join(505, ASKED, HALF)
        scrapes = []
        end = time.monotonic() + 120
        while time.monotonic() < end:
            turn = time.monotonic() + 120 / 18
            scrapes.append(timed(exporter))
            crowd.join(20, HALF)
            crowd.join(max(0, 505 - crowd.left()), HALF)
            wait_until(lambda turn=turn: time.monotonic() > turn, what="the next scrape's turn")  # type: ignore[misc]
        said = exporter.output

    assert [200] * 18 == one_by_one(scrapes), scrapes
    assert said.count("\n") < 20, said


@pytest.mark.parametrize("says", [b"", bytes.fromhex("1603010200010001fc0303")], ids=["nothing", "half a hello"])
def test_a_crowd_that_does_not_finish_the_tls_handshake_does_not_keep_the_scraper_out(
    tmp_path: Path, tls_config: Path, says: bytes
) -> None:
    """
    As many as there is room for, and 20 more before each scrape: each is answered within two seconds, and the log stays short.
    """
    with running(tmp_path, "--web.config.file", str(tls_config), scheme="https") as exporter, Crowd(exporter) as crowd:
        crowd.join(505, says)
        scrapes = []
        for _ in range(4):
            crowd.join(20, says)
            scrapes.append(timed(exporter))
        said = exporter.output

    assert [200] * 4 == one_by_one(scrapes), scrapes
    assert said.count("\n") < 20, said


def _clients_that_keep_waiting(exporter: Exporter, tls: Exporter) -> dict[str, socket.socket]:
    """
    Open one connection for each way to keep an exporter waiting.
    """
    said = {
        "nothing": b"",
        "half a head": HALF,
        "half a head after an answer": ASKED + HALF,
        "a body that never comes": ASKED[:-2] + b"Content-Length: 5\r\n\r\n",
        "a body without an end": ASKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "a body of an operation": b"POST /api/v1/channels/a/pause-all HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n",
    }
    opened = {}
    for what, words in said.items():
        opened[what] = socket.create_connection(("127.0.0.1", exporter.port), timeout=10)
        opened[what].sendall(words)
    for what, words in (("no TLS handshake", b""), ("half a TLS handshake", bytes.fromhex("1603010200010001fc0303"))):
        opened[what] = socket.create_connection(("127.0.0.1", tls.port), timeout=10)
        opened[what].sendall(words)
    return opened


@contextlib.contextmanager
def _dripping(*connections: socket.socket) -> Iterator[None]:
    """
    Send another byte over *connections* every so often, as long as they are open.
    """
    done = threading.Event()

    def drip() -> None:
        while not done.wait(0.2):
            for each in connections:
                with contextlib.suppress(OSError):
                    each.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _times_until_closed(tmp_path: Path, config: Path, command: tuple[str, ...], *, within: float) -> dict[str, float]:
    (tmp_path / "tls").mkdir()
    tls_options = ("--web.config.file", str(config))
    with running(tmp_path, command=command) as exporter, running(tmp_path / "tls", *tls_options, scheme="https", command=command) as tls:
        opened = _clients_that_keep_waiting(exporter, tls)
        begin = time.monotonic()
        closed: dict[str, float] = {}

        def all_closed() -> bool:
            for what, connection in opened.items():
                if what not in closed and is_closed(connection):
                    closed[what] = time.monotonic() - begin
            return closed.keys() == opened.keys() or time.monotonic() - begin > within

        with _dripping(opened["half a head"], opened["half a head after an answer"]):
            wait_until(all_closed, within=within + 5, what="them to be closed")
        for connection in opened.values():
            connection.close()
        return {what: closed.get(what, float("inf")) for what in opened}


def test_who_keeps_the_exporter_waiting_is_put_out(tmp_path: Path, tls_config: Path) -> None:
    """
    Every request and every handshake has a deadline, head and body alike, for clients that send a byte now and then as well.
    """
    closed = _times_until_closed(tmp_path, tls_config, HURRIED, within=8)

    # The API itself gives an operation's body ten seconds; its connection has less here.
    assert {} == {what: took for what, took in closed.items() if took > 5}, closed


@pytest.mark.faults
def test_who_keeps_the_exporter_waiting_is_put_out_in_time(tmp_path: Path, tls_config: Path) -> None:
    """
    The same with the deadlines as shipped: none is there after twenty seconds.
    """
    closed = _times_until_closed(tmp_path, tls_config, EXPORTER, within=25)

    assert {} == {what: took for what, took in closed.items() if took > 20}, closed
    assert min(closed.values()) > 8, closed


def test_a_client_that_does_not_read_is_put_out(tmp_path: Path) -> None:
    """
    What was asked for again and again, and is not taken, does not stay in memory.
    """
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1500
    with running(tmp_path, command=HURRIED) as exporter, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", exporter.port))
        deaf.sendall(asked)
        poll = select.poll()
        poll.register(deaf, select.POLLHUP | select.POLLERR)

        wait_until(lambda: poll.poll(0), within=20, what="it to be put out")
        assert 200 == get(exporter).status_code


def test_garbage_from_strangers_does_not_fill_the_log(tmp_path: Path) -> None:
    """
    Two hundred invalid requests cost one line.
    """
    with running(tmp_path) as exporter, Crowd(exporter) as crowd:
        crowd.join(200, b"\x16\x03\x01 no http\r\n\r\n", b"")
        wait_until(lambda: crowd.left() == 0, what="them to be refused")
        said = exporter.output

    assert 1 == said.count("Invalid HTTP request"), said


# -- descriptors ------------------------------------------------------------------------------------------------------


def test_without_descriptors_the_scraper_is_let_in_and_the_log_stays_short(tmp_path: Path) -> None:
    """
    With its limit of open files below what is open, idle connections give way, one line says so, and afterwards all is as before.
    """
    with running(tmp_path) as exporter, Crowd(exporter) as crowd:
        crowd.join(60, ASKED, HALF)
        before = resource.prlimit(exporter.process.pid, resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        scrapes = []
        for _ in range(5):
            crowd.join(20, HALF)
            scrapes.append(timed(exporter))
        resource.prlimit(exporter.process.pid, resource.RLIMIT_NOFILE, before)
        scrapes.append(timed(exporter))
        said = exporter.output

    assert [200] * 6 == one_by_one(scrapes), scrapes
    assert 1 == said.count("Cannot accept a connection: Too many open files"), said
    assert said.count("\n") < 20, said


def test_with_few_files_allowed_half_of_them_are_for_connections(tmp_path: Path) -> None:
    """
    A hundred connections of an exporter that may open 64 files leave it enough for its work.
    """
    limited = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *EXPORTER)
    with running(tmp_path, command=limited) as exporter, Crowd(exporter) as crowd:
        crowd.join(100, ASKED, HALF)
        scrapes = [timed(exporter) for _ in range(5)]
        said = exporter.output

    assert [200] * 5 == one_by_one(scrapes), scrapes
    assert "Too many open files" not in said


# -- pages ------------------------------------------------------------------------------------------------------------


def test_a_hundred_readers_of_the_status_page_do_not_delay_the_scraper(tmp_path: Path) -> None:
    """
    While Redis hangs, the metrics come within a second, whatever the others wait for, and the others share one read.
    """
    with RedisServer() as server, running(tmp_path, "--redis-url", server.url) as exporter:
        get(exporter, "/")
        with server.hanging(), Crowd(exporter) as crowd:
            crowd.join(100, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            begin = time.monotonic()
            scrapes = [timed(exporter) for _ in range(3)]
            wait_until(lambda: len(crowd.answered()) == 100, what="all pages")
            pages = time.monotonic() - begin

    assert {200} == {status for status, _ in scrapes}
    assert max(took for _, took in scrapes) < 1, scrapes
    assert pages < 5, pages


def test_questions_that_wait_for_redis_have_an_end(tmp_path: Path) -> None:
    """
    While Redis hangs, of a crowd with different questions most are told to come again, in JSON, and the scraper is answered.
    """
    with RedisServer() as server, running(tmp_path, "--redis-url", server.url) as exporter, server.hanging(), Crowd(exporter) as crowd:
        for number in range(100):
            crowd.join(1, f"GET /api/v1/channels/status?limit={number + 1} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, took = timed(exporter)
        wait_until(lambda: len(crowd.answered()) >= 60, what="refusals")
        answers = [each.recv(65536) for each in crowd.answered()]

    refused = [each for each in answers if b'"busy"' in each]
    assert (200, True) == (status, took < 1)
    assert len(refused) >= 60
    assert all(b" 503 " in each and b"retry-after: 5" in each.lower() for each in refused)


# -- passwords --------------------------------------------------------------------------------------------------------


def _guesses(crowd: Crowd, how_many: int) -> None:
    for number in range(how_many):
        words = f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: {basic('prometheus', f'wrong{number}')}\r\n\r\n"
        crowd.join(1, words.encode())


def test_guessed_passwords_do_not_keep_the_right_one_waiting(tmp_path: Path) -> None:
    """
    With 400 wrong ones under way at bcrypt's cost 12, the right one is let in within five seconds, though it was never seen before.
    """
    config = users_file(tmp_path / "web.yml", cost=12)
    with running(tmp_path, "--web.config.file", str(config)) as exporter, Crowd(exporter) as crowd:
        _guesses(crowd, 400)
        first = timed(exporter, auth=("prometheus", "right"))
        again = [timed(exporter, auth=("prometheus", "right")) for _ in range(3)]
        refused = [each.recv(4096) for each in crowd.answered()]

    assert 200 == first[0]
    assert first[1] < 5, first
    assert [200] * 3 == [status for status, _ in again]
    assert max(took for _, took in again) < 1, again
    assert len(refused) > 300
    assert {True} == {b" 401 " in each or (b" 429 " in each and b"retry-after: 5" in each.lower()) for each in refused}


def test_a_scraper_that_was_let_in_before_passes_those_who_guess(tmp_path: Path) -> None:
    """
    While others guess again and again, each at once after its refusal, a known scraper is answered at once.
    """
    config = users_file(tmp_path / "web.yml", cost=11)
    with running(tmp_path, "--web.config.file", str(config)) as exporter:
        assert 200 == get(exporter, auth=("prometheus", "right")).status_code
        done = threading.Event()
        guessers = [threading.Thread(target=_guess_until, args=(exporter, done, number)) for number in range(8)]
        for each in guessers:
            each.start()
        scrapes = [timed(exporter, auth=("prometheus", "right")) for _ in range(5)]
        done.set()
        for each in guessers:
            each.join()

    assert [200] * 5 == one_by_one(scrapes), scrapes


def _guess_until(exporter: Exporter, done: threading.Event, number: int) -> None:
    turn = 0
    with httpx.Client(trust_env=False, verify=False, timeout=30) as client:  # noqa: S501 -- there is no TLS.
        while not done.is_set():
            turn += 1
            with contextlib.suppress(httpx.TransportError):
                client.get(f"{exporter.url}/metrics", auth=("prometheus", f"{number}-{turn}"))


# -- host names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "allowed", "refused"),
    [
        ([], ["localhost", "127.0.0.1:19540", "[::1]:19540"], ["attacker.example", "localhost.attacker.example:19540", ""]),
        (
            ["--web.allowed-hosts", "metrics.example.com, *.internal"],
            ["metrics.example.com:443", "a.b.INTERNAL.", "localhost"],
            ["attacker.example", "internal"],
        ),
        (["--web.listen-address", "0.0.0.0:{port}"], ["10.1.2.3:19540", "metrics.example.com"], []),
    ],
)
def test_only_allowed_hosts_are_answered(tmp_path: Path, options: list[str], allowed: list[str], refused: list[str]) -> None:
    """
    A name that was made to lead here (DNS rebinding) gets nothing but a sentence that says what to do, on every path.
    """
    words = [option.format(port=free_port()) for option in options]
    paths = ("/metrics", "/health", "/openapi.json", "/api/v1/channels/status")
    with running(tmp_path, *words) as exporter:
        answers = {(host, path): get(exporter, path, headers={"Host": host}) for host in (*allowed, *refused) for path in paths}

    assert refused == list(dict.fromkeys(host for (host, _), answer in answers.items() if answer.status_code == 421))
    for host in refused:
        of_host = [answers[host, path] for path in paths]
        assert {421} == {answer.status_code for answer in of_host}
        assert all("--web.allowed-hosts" in answer.text and "CELERY_OBS_WEB_ALLOWED_HOSTS" in answer.text for answer in of_host)
        assert "wrong_host" == of_host[-1].json()["error"]


def test_allowed_hosts_come_from_the_environment_too(tmp_path: Path) -> None:
    """
    CELERY_OBS_WEB_ALLOWED_HOSTS is the option; a refusal is in the log once, however many there are.
    """
    environ = {**os.environ, "CELERY_OBS_WEB_ALLOWED_HOSTS": "one.example,two.example"}
    with running(tmp_path, environ=environ) as exporter:
        statuses = [
            get(exporter, headers={"Host": host}).status_code for host in ("one.example", "two.example", "three.example", "four.example")
        ]
        said = exporter.output

    assert [200, 200, 421, 421] == statuses
    assert 1 == said.count("does not answer to the host"), said


# -- the web configuration --------------------------------------------------------------------------------------------


def _change(config: Path, text: str) -> None:
    """
    Replace the file as an editor does, so that it is another one.
    """
    new = config.with_suffix(".new")
    new.write_text(text)
    new.replace(config)


SECRET = "hunter2-of-the-tests"

SPOILED = {
    "empty": "",
    "of comments only": "# nothing\n",
    "without users": "http_server_config: {headers: {X-Frame-Options: deny}}\n",
    "with a date": "basic_auth_users: {u: 2024-01-31}\n",
    "with a date that is none": "basic_auth_users: {u: 2024-02-31}\n",
    "with a date as a key": "2024-01-31: {}\n",
    "with a list as a key": f"? [{SECRET}, b]\n: c\n",
    "with a mapping as a key": f"basic_auth_users: {{? {{{SECRET}: b}} : c}}\n",
    "that is deep": "[" * 100_000,
    "that is deep in a known key": "basic_auth_users: " + "{a: " * 5_000,
    "that is long": "#" * 1_000_000,
    "with an unknown alias": f"basic_auth_users: *{SECRET}\n",
    "with a tag": f"basic_auth_users: !{SECRET} x\n",
    "with a number of many digits": f"basic_auth_users: {{u: {'9' * 100_000}}}\n",
    "with a text for users": f"basic_auth_users: 'admin:{SECRET}'\n",
    "with a password and no hash": f"basic_auth_users: {{u: {SECRET}}}\n",
}


def test_no_spoiled_configuration_opens_the_door_or_says_more_than_a_line(tmp_path: Path) -> None:
    """
    Whatever the file becomes, even nothing, the users of before stay in force, and one line says why; a good one is taken again.
    """
    config = users_file(tmp_path / "web.yml", cost=4)
    good = config.read_text()
    with running(tmp_path, "--web.config.file", str(config)) as exporter:
        lines = {}
        for what, text in SPOILED.items():
            before = exporter.output
            _change(config, text)
            statuses = [get(exporter).status_code, get(exporter, auth=("prometheus", "right")).status_code]
            lines[what] = (statuses, exporter.output[len(before) :])
        before = exporter.output
        config.unlink()
        lines["that is gone"] = (
            [get(exporter).status_code, get(exporter, auth=("prometheus", "right")).status_code],
            exporter.output[len(before) :],
        )
        before = exporter.output
        os.mkfifo(config)
        lines["that is a FIFO"] = (
            [get(exporter).status_code, get(exporter, auth=("prometheus", "right")).status_code],
            exporter.output[len(before) :],
        )
        config.unlink()
        _change(config, good.replace("prometheus", "other"))
        taken = [get(exporter, auth=(user, "right")).status_code for user in ("prometheus", "other")]

    assert {} == {what: found for what, found in lines.items() if found[0] != [401, 200]}
    assert {} == {what: said for what, (_, said) in lines.items() if said.count("\n") != 1 or "the previous one stays in force" not in said}
    assert SECRET not in str(lines)
    assert [401, 200] == taken


def test_a_reload_demands_no_less_than_before(tmp_path: Path, tls_config: Path) -> None:
    """
    Clients' certificates, their names and TLS itself cannot be dropped without a restart.
    """
    for name in ("server.pem", "server.key", "ca.pem"):
        (tmp_path / name).write_bytes((tls_config.parent / name).read_bytes())
    config = tmp_path / "web.yml"
    tls = "cert_file: server.pem, key_file: server.key"
    mutual = f"{tls}, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert"
    config.write_text(f"tls_server_config: {{{mutual}, client_allowed_sans: [prometheus]}}\n")
    weaker = {
        "turns TLS off": "{}",
        "requires less of clients' certificates": f"tls_server_config: {{{tls}}}",
        "(client_allowed_sans)": f"tls_server_config: {{{mutual}}}",
    }
    with running(tmp_path, "--web.config.file", str(config), scheme="https") as exporter:
        for says, text in weaker.items():
            _change(config, text)
            with pytest.raises(httpx.TransportError):
                get(exporter)
            wait_until(lambda says=says: says in exporter.output, what=says)  # type: ignore[misc]
        said = exporter.output

    assert 3 == said.count("takes a restart of the exporter"), said


def test_sighup_reads_the_web_configuration_again(tmp_path: Path) -> None:
    """
    At once, without a request; what is bad is refused in a line; the exporter lives on.
    """
    config = users_file(tmp_path / "web.yml", cost=4)
    with running(tmp_path, "--web.config.file", str(config)) as exporter:
        exporter.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "was read again" in exporter.output, what="the reload")

        _change(config, "")
        exporter.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "is empty" in exporter.output, what="the refusal")

        assert 401 == get(exporter).status_code
        assert 200 == get(exporter, auth=("prometheus", "right")).status_code
        assert exporter.process.poll() is None


def test_sighup_without_a_web_configuration_ends_nothing(tmp_path: Path) -> None:
    """
    There is nothing to read again, and that is said.
    """
    with running(tmp_path) as exporter:
        exporter.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP" in exporter.output, what="a word on it")

        assert 200 == get(exporter).status_code


# -- the page about it ------------------------------------------------------------------------------------------------


def _options_on_the_page(page: str, having: str) -> list[str]:
    (line,) = re.findall(rf"^celery-obs exporter (.*{having}.*)$", page, re.MULTILINE)
    return shlex.split(line.replace("0.0.0.0:19540", f"0.0.0.0:{free_port()}"))


def test_the_page_on_opening_it_to_others_works_as_it_stands(tmp_path: Path, tls_config: Path) -> None:
    """
    Its web configuration is a good one, with a hash and certificates that exist, and its commands start an exporter that answers as it says.
    """
    page = PAGE.read_text()
    (written,) = re.findall(r"```yaml\n# /etc/celery-obs/web.yml\n(.*?)```", page, re.DOTALL)
    config = tls_config.parent / "page.yml"
    config.write_text(written.replace("$2y$10$…", bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()))
    opened = [each.replace("/etc/celery-obs/web.yml", str(config)) for each in _options_on_the_page(page, "web.config.file")]

    with running(tmp_path, *opened, scheme="https") as exporter:
        answers = [get(exporter).status_code, get(exporter, auth=("prometheus", "right"), headers={"Host": "any.example"}).status_code]
    with running(tmp_path, *_options_on_the_page(page, "allowed-hosts")) as exporter:
        hosts = ("metrics.example.com", "a.internal.example.com", "localhost", "other.example.com")
        answers += [get(exporter, headers={"Host": host}).status_code for host in hosts]

    assert [401, 200, 200, 200, 200, 421] == answers


def test_the_page_has_the_deadlines_and_limits_of_the_code() -> None:
    """
    Its table, and its numbers of connections and of passwords that wait.
    """
    page = PAGE.read_text()

    rows = re.findall(r"\| (\d+) s(?: each)? \|$", page, re.MULTILINE)
    assert [DEADLINES["head"], DEADLINES["body"], DEADLINES["reading"], KEEP_ALIVE] == [float(row) for row in rows]
    assert f"at most {MOST_CONNECTIONS} connections" in page
    assert f"more than {MOST_WAITING} wait" in page
