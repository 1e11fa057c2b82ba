"""
The exporter as a process, asked over real sockets.
"""

from __future__ import annotations

import gzip
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

from pathlib import Path

import bcrypt
import httpx
import pytest
import redis

from tests.certificates import Authority
from tests.exporters import EXPORTER, Exporter, as_users_run_it, running
from tests.servers import RabbitMQServer, RedisServer, free_port, kombu_connection, wait_until


pytestmark = pytest.mark.integration


def _get(url: str, path: str = "/metrics", **more: object) -> httpx.Response:
    with httpx.Client(trust_env=False, **more) as client:  # type: ignore[arg-type]  # Passed on as they come.
        return client.get(url + path)


def _delay(exporter: Exporter) -> float:
    """
    Return the seconds that a page takes: the middle of five, for one may meet a busy machine, and where pages wait for a broker, all do.
    """
    return statistics.median(_get(exporter.url).elapsed.total_seconds() for _ in range(5))


def test_every_path_answers(tmp_path: Path) -> None:
    """
    Metrics in both formats, compressed and not, health, readiness, a landing page; HEAD too, and no other method.
    """
    with running(tmp_path) as exporter, httpx.Client(base_url=exporter.url, trust_env=False) as client:
        text = client.get("/metrics", headers={"Accept-Encoding": "identity"})
        openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"})
        statuses = {
            path: client.get(path).status_code
            for path in ("/", "/health", "/-/healthy", "/live", "/-/ready", "/ready", "/startup", "/none")
        }
        head = client.head("/metrics")
        posted = client.post("/metrics")
        health = client.get("/health").json()

    assert "text/plain; version=0.0.4; charset=utf-8" == text.headers["content-type"]
    assert "content-encoding" not in text.headers
    assert "process_resident_memory_bytes" in text.text
    assert "application/openmetrics-text; version=1.0.0; charset=utf-8" == openmetrics.headers["content-type"]
    assert "gzip" == openmetrics.headers["content-encoding"]
    assert openmetrics.text.endswith("# EOF\n")
    assert 404 == statuses.pop("/none")
    assert {200} == set(statuses.values()), statuses
    assert (200, b"") == (head.status_code, head.content)
    assert 405 == posted.status_code
    assert "unknown" == health["status"]  # No worker was here so far.
    assert {"status", "timestamp", "version", "uptime_seconds", "response_time_ms", "checks"} == set(health)
    assert {"status": "healthy", "error": None} == {key: health["checks"]["metrics_dir"][key] for key in ("status", "error")}


def test_it_is_not_ready_without_its_directory_and_lives_on(tmp_path: Path) -> None:
    """
    A missing metrics directory makes readiness fail with the reason, not liveness, and not the page.
    """
    with running(tmp_path) as exporter:
        (tmp_path / "metrics").rmdir()

        ready, live, metrics, health = (_get(exporter.url, path) for path in ("/-/ready", "/live", "/metrics", "/health"))

    assert 503 == ready.status_code
    assert "is not a directory" in ready.text
    assert 200 == live.status_code
    assert 200 == metrics.status_code
    assert (503, "unhealthy") == (health.status_code, health.json()["status"])


def test_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    """
    The exit status is 0 and the log has no traceback.
    """
    with running(tmp_path) as exporter:
        exporter.metrics()

        assert 0 == exporter.stop()
        assert "Traceback" not in exporter.output


def test_redis_killed_hanging_and_back(tmp_path: Path) -> None:
    """
    The page comes within a second all the time; the queue collector says that it failed, how old its data is, and recovers by itself.
    """
    success = 'celery_obs_collector_success{collector="queues"}'
    depth = 'celery_queue_depth{queue="q"}'
    with RedisServer(password="word") as server, running(tmp_path, "--broker-url", server.url, "--queues", "q") as exporter:
        with redis.Redis(port=server.port, password="word") as client:
            client.rpush("q", "message")
        wait_until(lambda: exporter.metrics().get(depth) == 1, what="the queue")
        wait_until(lambda: exporter.metrics()[success] == 1, what="success")

        with server.hanging():
            hanging = exporter.metrics()
            assert _delay(exporter) < 1
            ready = _get(exporter.url, "/-/ready").status_code
        server.kill()
        killed = exporter.metrics()
        assert _delay(exporter) < 1
        server.start()
        wait_until(lambda: exporter.metrics()[success] == 1, what="recovery")

        assert (0, 0) == (hanging[success], killed[success])
        assert 503 == ready
        assert killed['celery_obs_collector_age_seconds{collector="queues"}'] > 0
        assert killed['celery_obs_internal_errors_total{component="collector:queues"}'] >= 1
        assert depth not in exporter.metrics()
        assert "word" not in exporter.output.replace("password", "")
        assert "Traceback" not in exporter.output


def test_rabbitmq_killed_hanging_and_back(tmp_path: Path) -> None:
    """
    The same with RabbitMQ, whose durable queue is still there afterwards.
    """
    success = 'celery_obs_collector_success{collector="queues"}'
    depth = 'celery_queue_depth{queue="q"}'
    with RabbitMQServer() as server, running(tmp_path, "--broker-url", server.url, "--queues", "never,q") as exporter:
        with kombu_connection(server.url) as connection:
            connection.default_channel.queue_declare("q", durable=True, auto_delete=False)
        wait_until(lambda: exporter.metrics().get(depth) == 0, what="the queue")
        assert 0 == exporter.metrics()['celery_queue_consumers{queue="q"}']

        with server.hanging():
            hanging = exporter.metrics()
            assert _delay(exporter) < 1
        server.kill()
        wait_until(lambda: exporter.metrics()[success] == 0, what="the failure")
        server.restart()
        wait_until(lambda: exporter.metrics()[success] == 1, what="recovery")

        assert 0 == hanging[success]
        assert 0 == exporter.metrics()[depth]
        assert 'celery_queue_depth{queue="never"}' not in exporter.metrics()
        assert "Traceback" not in exporter.output


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pki")
    authority = Authority(made)
    authority.issue("server")
    authority.issue("renewed", alternatives="DNS:renewed,IP:127.0.0.1")
    authority.issue("client", alternatives="DNS:prometheus")
    authority.issue("stranger", alternatives="DNS:stranger")
    return made


def _context(pki: Path, client: str = "") -> object:
    import ssl

    context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    if client:
        context.load_cert_chain(pki / f"{client}.pem", pki / f"{client}.key")
    return context


def test_mutual_tls(tmp_path: Path, pki: Path) -> None:
    """
    Only a client with a certificate of the authority, and of an allowed name, gets an answer.
    """
    config = pki / "mtls.yml"
    config.write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem,"
        " client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [prometheus]}"
    )
    with running(tmp_path, "--web.config.file", str(config), scheme="https") as exporter:
        assert 200 == _get(exporter.url, verify=_context(pki, "client")).status_code
        for client in ("", "stranger"):
            with pytest.raises(httpx.TransportError):
                _get(exporter.url, verify=_context(pki, client))
        with pytest.raises(httpx.TransportError):
            _get(exporter.url.replace("https", "http"))
        assert 200 == _get(exporter.url, verify=_context(pki, "client")).status_code


def test_basic_auth_and_headers(tmp_path: Path) -> None:
    """
    Without the right password there is nothing to see on any path; with it there is, and the headers are on every answer.
    """
    config = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(b"pass:word", bcrypt.gensalt(5)).decode()
    config.write_text(f"basic_auth_users: {{prometheus: {hashed}}}\nhttp_server_config: {{headers: {{X-Frame-Options: deny}}}}\n")
    with running(tmp_path, "--web.config.file", str(config)) as exporter:
        right = _get(exporter.url, auth=("prometheus", "pass:word"))
        refused = [
            _get(exporter.url),
            _get(exporter.url, "/-/healthy"),
            _get(exporter.url, auth=("prometheus", "wrong")),
            _get(exporter.url, auth=("stranger", "pass:word")),
            _get(exporter.url, headers={"Authorization": "Basic %%%"}),
            _get(exporter.url, headers={"Authorization": "Bearer x"}),
        ]

    assert 200 == right.status_code
    assert [401] * 6 == [answer.status_code for answer in refused]
    assert {"deny"} == {answer.headers["x-frame-options"] for answer in (right, *refused)}
    assert all("Basic" in answer.headers["www-authenticate"] for answer in refused)


def test_a_renewed_certificate_and_a_new_user_take_effect(tmp_path: Path, pki: Path) -> None:
    """
    The next handshake has the new certificate and the next request the new user, without a restart; a file that became wrong changes nothing.
    """
    for kind in ("pem", "key"):
        (tmp_path / f"tls.{kind}").write_bytes((pki / f"server.{kind}").read_bytes())
    config = tmp_path / "web.yml"
    tls = "tls_server_config: {cert_file: tls.pem, key_file: tls.key}\n"
    config.write_text(tls)
    with running(tmp_path, "--web.config.file", str(config), scheme="https") as exporter:
        assert b"renewed" not in _certificate(exporter.port)

        for kind in ("pem", "key"):
            (tmp_path / f"tls.{kind}").write_bytes((pki / f"renewed.{kind}").read_bytes())
        assert b"renewed" in _certificate(exporter.port)

        config.write_text(tls + f"basic_auth_users: {{u: {bcrypt.hashpw(b'p', bcrypt.gensalt(4)).decode()}}}\n")
        assert 401 == _get(exporter.url, verify=_context(pki)).status_code
        assert 200 == _get(exporter.url, verify=_context(pki), auth=("u", "p")).status_code

        # A certificate whose key was not there yet may have been refused, too.
        before = _refusals(_get(exporter.url, verify=_context(pki), auth=("u", "p")))
        config.write_text("nonsense: true")
        answer = _get(exporter.url, verify=_context(pki), auth=("u", "p"))
        assert 200 == answer.status_code
        assert _refusals(answer) > before


def _refusals(answer: httpx.Response) -> float:
    found = re.search(r'^celery_obs_internal_errors_total\{component="web_config"\} (\S+)$', answer.text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _certificate(port: int) -> bytes:
    import ssl

    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))


def test_those_who_connect_and_say_nothing_block_nobody(tmp_path: Path) -> None:
    """
    With a hundred silent connections and one that sends byte by byte, a scraper is answered at once; an endless header is cut off.
    """
    with running(tmp_path) as exporter:
        silent = [socket.create_connection(("127.0.0.1", exporter.port)) for _ in range(100)]
        silent[0].sendall(b"GET /metr")
        begin = time.monotonic()
        assert 200 == _get(exporter.url).status_code
        assert time.monotonic() - begin < 2

        with socket.create_connection(("127.0.0.1", exporter.port), timeout=5) as endless:
            endless.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
            answer = endless.recv(1000)
        for each in silent:
            each.close()

    assert b" 400 " in answer or b"" == answer


def test_several_addresses(tmp_path: Path) -> None:
    """
    It listens on all that were given, IPv6 included.
    """
    other = free_port()
    with running(tmp_path, "--web.listen-address", f"[::1]:{other}") as exporter:
        assert 200 == _get(exporter.url).status_code
        assert 200 == _get(f"http://[::1]:{other}").status_code


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--web.listen-address", "127.0.0.1:{taken}"], "Another program is listening there"),
        (["--web.listen-address", "no-port"], "Expected host:port"),
        (["--web.listen-address", "127.0.0.1:99999"], "Expected host:port"),
        (["--web.listen-address", "::1:80"], "Expected host:port"),
        (["--web.listen-address", "no.such.host.invalid:1"], "is not known"),
        (["--web.listen-address", "192.0.2.1:19540"], "no such address"),
        (["--web.config.file", "none.yml"], "cannot be read"),
        (["--broker-url", "carrier-pigeon://u:secret@h"], "Known are"),
        (["--broker-url", "amqp://rabbit.example.com//"], "no credentials"),
        (["--redis-url", "http://:secret@h", "--broker-url", "memory://"], "is not a Redis URL"),
        (["--enable-operations"], "--enable-operations needs a Redis"),
        (["--enable-operations", "--redis-url", "redis://h", "--scope", "worker"], "--enable-operations needs a Redis"),
        (["--enable-operations", "--redis-url", "redis://h"], "The operations token has 0 characters. Expected at least 16"),
        (["--enable-operations", "--redis-url", "redis://h", "--operations-token-file", "none"], "Expected a file that holds the token"),
    ],
)
def test_bad_options_are_refused_in_one_paragraph(tmp_path: Path, options: list[str], says: str) -> None:
    """
    Exit status 2, one paragraph, no traceback, no password.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [option.format(taken=taken.getsockname()[1]) for option in options]
        ended = subprocess.run([*EXPORTER, "--metrics-dir", str(tmp_path), *words], capture_output=True, text=True, timeout=30, check=False)

    assert 2 == ended.returncode, ended.stderr
    assert ended.stderr.startswith("Error: ")
    assert 1 == ended.stderr.count("\n")
    assert says in ended.stderr
    assert "secret" not in ended.stderr


def test_operations_are_done_by_who_knows_the_token_and_always_said(tmp_path: Path) -> None:
    """
    The token comes from a file; the audit's lines are in the log, and the token is not.
    """
    token = "0123456789abcdef-of-the-tests"
    (tmp_path / "token").write_text(f"{token}\n")
    options = ("--enable-operations", "--operations-token-file", str(tmp_path / "token"), "--log-format", "json")
    with RedisServer() as server, redis.Redis(port=server.port) as client:
        client.zadd("celery_obs:channels", {"airbnb": time.time()})
        with running(tmp_path, "--redis-url", server.url, *options) as exporter:
            url = f"{exporter.url}/api/v1/channels/airbnb/pause-all"
            refused = httpx.post(url, headers={"Authorization": "Bearer wrong"}, trust_env=False)
            done = httpx.post(url, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
            said = exporter.output

        assert (401, 200) == (refused.status_code, done.status_code)
        assert client.exists("channel_manager:airbnb:paused")
    assert ("refused: unauthorized" in said, said.count("channel.pause"), token in said) == (True, 2, False)


def test_options_come_from_the_environment_too(tmp_path: Path) -> None:
    """
    CELERY_OBS_ and the option's name.
    """
    ended = subprocess.run(
        [*EXPORTER],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "CELERY_OBS_WEB_LISTEN_ADDRESS": "from-the-environment"},
    )

    assert 2 == ended.returncode
    assert "from-the-environment" in ended.stderr


def test_idle_memory_is_within_its_limit(tmp_path: Path) -> None:
    """
    With Redis as broker and after some scrapes, it takes at most 48 MiB, and no more for a gzip or two.
    """
    environ = as_users_run_it()
    with RedisServer() as server, running(tmp_path, "--broker-url", server.url, "--queues", "q", environ=environ) as exporter:
        for _ in range(20):
            found = exporter.metrics()

    assert found["process_resident_memory_bytes"] <= 48 * 1024 * 1024


def test_the_exporter_loads_no_celery_and_nothing_of_the_worker() -> None:
    """
    Its imports are its own: no celery, no kombu, none of the worker's rooms.
    """
    code = (
        "import sys, celery_obs.exporter.app, celery_obs.exporter.server, celery_obs.cli.exporter;"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in {'celery', 'kombu', 'redis', 'amqp', 'bcrypt', 'yaml'}"
        " or m.startswith(('celery_obs.runtime', 'celery_obs.sync', 'celery_obs.runtime.plugin'))))"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]\n" == shown.stdout


def test_a_body_is_compressed_quickly_rather_than_well() -> None:
    """
    Level 1, and what was compressed is what was meant.
    """
    from celery_obs.exporter.exposition import compress

    body = b"celery_task_finished_total 1.0\n" * 1000

    assert body == gzip.decompress(compress(body))
    assert 4 == compress(body)[8]  # The header's mark of the fastest level.


def test_ctrl_c_ends_it_as_well(tmp_path: Path) -> None:
    """
    SIGINT is a stop that was asked for.
    """
    with running(tmp_path) as exporter:
        exporter.process.send_signal(signal.SIGINT)

        assert 0 == exporter.process.wait(10)
