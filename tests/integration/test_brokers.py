"""
Whatever an app uses as its broker, its worker, its publishers and its sidecar find it: failover lists, TLS, Sentinel, priorities, broadcasts.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import urllib.request

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from celery import Celery

from celery_obs.cli.doctor import Surroundings, examine
from celery_obs.state import keys
from celery_obs.state.broker import of_app
from celery_obs.state.connection import connect
from tests.certificates import Authority
from tests.servers import RabbitMQServer, RedisSentinel, RedisServer, free_port, tls_options, wait_until
from tests.workers import APPS, Metrics, Process, Worker, samples_in


pytestmark = pytest.mark.integration


def worker(folder: Path, conf: Mapping[str, Any], *, ledger: str, name: str = "w1@test", **environ: str) -> Worker:
    """
    Return a worker of an app with this configuration.
    """
    return Worker("-P", "solo", redis=ledger, folder=folder, name=name, app="brokered", TEST_CONF=json.dumps(conf), **environ)


class Exporter(Process):
    """
    The sidecar.

    Args:
        options: Of the command.

        conf: The app's configuration, where the app's own command starts it.
    """

    def __init__(self, folder: Path, *options: str, conf: Mapping[str, Any] | None = None, **environ: str) -> None:
        self.port = free_port()
        way = [sys.executable, "-m", "celery_obs.cli"] if conf is None else [sys.executable, "-m", "celery", "-A", "brokered", "obs"]
        super().__init__(
            [*way, "exporter", f"--web.listen-address=127.0.0.1:{self.port}", "--scope=cluster", "--lease-period=0.5", *options],
            log=folder / f"exporter-{self.port}.log",
            environ={
                "TEST_CONF": json.dumps(conf or {}),
                "CELERY_OBS_METRICS_DIR": str(folder / "metrics"),
                "PYTHONPATH": os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
                **environ,
            },
        )

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """
        Scrape; nothing while it does not listen yet.
        """
        assert self.is_alive(), self.tail()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return samples_in(answer.read().decode())
        return {}

    def depth(self, queue: str = "orders", **labels: str) -> float | None:
        """
        Return the depth that it shows of a queue.
        """
        return self.samples().get(("celery_queue_depth", tuple(sorted({"queue": queue, **labels}.items()))))

    def shows(self, depth: float | None, queue: str = "orders", **labels: str) -> None:
        """
        Wait until it shows this depth.
        """
        wait_until(lambda: self.depth(queue, **labels) == depth, within=20, what=f"depth {depth} of {queue}: {self.tail()}")


def client_of(conf: Mapping[str, Any]) -> Any:
    """
    Return an app that publishes and has nothing of ours.
    """
    app = Celery("client", set_as_current=False, task_default_queue="orders")
    app.conf.update(conf)
    return app


def publish(conf: Mapping[str, Any], times: int = 1, **options: Any) -> None:
    """
    Publish to an app's queue.
    """
    with client_of(conf) as app, app.connection_for_write() as connection:
        for _ in range(times):
            app.send_task("brokered.work", connection=connection, **options)


def announced(conf: Mapping[str, Any], key: str = keys.QUEUES) -> dict[str, Any]:
    """
    Return what is announced in the Redis of an app's broker.
    """
    with contextlib.closing(connect(of_app(client_of(conf)))) as redis:
        entries: Any = redis.hgetall(key)
        return {name.decode(): json.loads(written) for name, written in entries.items()}


def findings(conf: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, str]]:
    """
    Ask the doctor about an app's broker.
    """
    broker = of_app(client_of(conf))
    return {each.name: (each.verdict, each.text) for each in examine(Surroundings(folder / "metrics", broker, broker))}


@pytest.mark.parametrize("as_list", [False, True])
def test_a_dead_first_broker_stops_nothing(tmp_path: Path, as_list: bool) -> None:
    """
    The worker starts, announces and is probed through the broker that lives, and all follow when that dies and the first comes back.
    """
    with RedisServer() as first, RedisServer() as second:
        first.kill()
        urls = [first.url, second.url]
        conf = {"broker_url": urls if as_list else ";".join(urls), "broker_connection_retry_on_startup": True}

        with worker(tmp_path, conf, ledger=second.url) as observed, Exporter(tmp_path, "--broker-url", ";".join(urls)) as exporter:
            wait_until(lambda: "orders" in announced(conf), what="the announcement")
            exporter.shows(0)
            assert "OK" == findings(conf, tmp_path)["broker"][0]
            observed.kill()
            publish(conf, 3)
            exporter.shows(3)

            second.kill()
            first.start()
            publish(conf, 2)
            exporter.shows(2)


@pytest.mark.parametrize("scheme", ["rediss", "redis"])
def test_tls_with_client_certificates(tmp_path: Path, scheme: str) -> None:
    """
    With broker_use_ssl, worker and doctor get in with the app's certificates, the sidecar with the app's or with its options; with none it is refused.
    """
    authority, port = Authority(tmp_path), free_port()
    ours = authority.issue("client")
    with RedisServer(options=tls_options(authority, port=port, clients=True)) as server:
        conf = {
            "broker_url": f"{scheme}://127.0.0.1:{port}/0",
            "broker_use_ssl": {
                "ssl_ca_certs": str(authority.cert),
                "ssl_certfile": str(ours.cert),
                "ssl_keyfile": str(ours.key),
                "ssl_cert_reqs": "required",
            },
        }
        files = (f"--broker-tls-ca-file={authority.cert}", f"--broker-tls-cert-file={ours.cert}", f"--broker-tls-key-file={ours.key}")

        with worker(tmp_path, conf, ledger=server.url):
            wait_until(lambda: "orders" in announced(conf), what="the announcement")
            assert "OK" == findings(conf, tmp_path)["broker"][0] == findings(conf, tmp_path)["redis"][0]
        publish(conf, 2)

        with Exporter(tmp_path, conf=conf) as of_the_app:
            of_the_app.shows(2)
        with Exporter(tmp_path, "--broker-url", str(conf["broker_url"]), *files) as by_options:
            by_options.shows(2)


def test_tls_that_is_not_verified_works_as_the_apps_does(tmp_path: Path) -> None:
    """
    A server whose certificate is self-signed is used where the app says ssl_cert_reqs none, and refused by a sidecar that was not told so.
    """
    authority, port = Authority(tmp_path), free_port()
    with RedisServer(options=tls_options(authority, port=port, clients=False)):
        url = f"rediss://127.0.0.1:{port}/0"
        conf = {"broker_url": url, "broker_use_ssl": {"ssl_cert_reqs": "none"}}
        publish(conf)

        assert "OK" == findings(conf, tmp_path)["broker"][0]
        with Exporter(tmp_path, "--queues=orders", "--broker-url", url, "--broker-tls-verify=none") as told:
            told.shows(1)
        with Exporter(tmp_path, "--queues=orders", "--broker-url", url) as strict:
            wait_until(lambda: "certificate verify failed" in strict.tail(), what="the certificate to be refused")


def test_sentinel_with_a_password_of_its_own_and_a_failover(tmp_path: Path) -> None:
    """
    Worker and sidecar get the master from sentinels that ask for a password, and follow when another server becomes the master.
    """
    with RedisSentinel(sentinels=1, password="theirs") as sentinel:
        conf = {
            "broker_url": sentinel.url.partition("?")[0],
            "broker_transport_options": {"master_name": sentinel.name, "sentinel_kwargs": {"password": "theirs"}},
        }
        options = ("--broker-url", str(conf["broker_url"]), f"--broker-transport-option=master_name={sentinel.name}")
        with (
            worker(tmp_path, conf, ledger=sentinel.master.url) as observed,
            Exporter(tmp_path, *options, CELERY_OBS_BROKER_SENTINEL_PASSWORD="theirs") as exporter,
        ):
            wait_until(lambda: "orders" in announced(conf), what="the announcement")
            exporter.shows(0)
            observed.kill()
            publish(conf, 2)
            exporter.shows(2)

            sentinel.fail_over()
            publish(conf, 2)
            exporter.shows(4)

        assert "theirs" not in exporter.tail() + observed.tail()


def test_rabbitmq_as_a_failover_list(tmp_path: Path) -> None:
    """
    The probe and the doctor go on to the server that lives, and a queue that does not exist is absent.
    """
    with RabbitMQServer() as server:
        dead = [f"amqp://guest:guest@127.0.0.1:{free_port()}//" for _ in range(2)]
        conf = {"broker_url": [*dead, server.url]}
        publish({"broker_url": server.url}, 2)

        with Exporter(tmp_path, "--queues=orders,never", "--broker-url", ";".join(conf["broker_url"])) as exporter:
            exporter.shows(2)
            assert exporter.depth("never") is None
        assert "OK" == findings(conf, tmp_path)["broker"][0]


def test_priority_steps_of_publishers_are_announced_by_them(tmp_path: Path, redis_server: RedisServer) -> None:
    """
    With ten steps, and no worker that says so, the depth is all 55 messages, and each step is told.
    """
    conf = {"broker_url": redis_server.url_of(3), "broker_transport_options": {"priority_steps": list(range(10)), "sep": "|"}}
    program = (
        "import brokered\n"
        "for priority in range(10):\n"
        "    for _ in range(priority + 1):\n"
        "        brokered.work.apply_async(priority=priority)\n"
    )
    environ = {**os.environ, "TEST_CONF": json.dumps(conf), "CELERY_OBS_METRICS_DIR": str(tmp_path / "metrics"), "PYTHONPATH": str(APPS)}

    subprocess.run([sys.executable, "-c", program], check=True, env=environ, timeout=60)

    with Exporter(tmp_path, "--broker-url", str(conf["broker_url"])) as exporter:
        exporter.shows(55)
        by_step = {
            dict(labels)["priority"]: value for (name, labels), value in exporter.samples().items() if name == "celery_queue_priority_depth"
        }
    assert {str(step): step + 1.0 for step in range(10)} == by_step


def test_two_brokers_in_one_sidecar_each_fail_for_themselves(tmp_path: Path, redis_server: RedisServer) -> None:
    """
    Their series differ by the label broker, and one that is down takes nothing from the other.
    """
    first = {"broker_url": redis_server.url_of(4)}
    with RedisServer() as server:
        second = {"broker_url": server.url_of(1)}
        publish(first, 1)
        publish(second, 2)
        urls = f"{first['broker_url']} {second['broker_url']}"
        one, other = f"127.0.0.1:{redis_server.port}/4", f"127.0.0.1:{server.port}/1"

        with Exporter(tmp_path, "--queues=orders", CELERY_OBS_BROKER_URL=urls) as exporter:
            exporter.shows(1, broker=one)
            exporter.shows(2, broker=other)
            server.kill()
            wait_until(
                lambda: exporter.samples().get(("celery_obs_collector_success", (("collector", f"queues:{other}"),))) == 0,
                what="the failure to be told",
            )
            assert 1 == exporter.depth(broker=one)
            assert 1 == exporter.samples()["celery_obs_collector_success", (("collector", f"queues:{one}"),)]


@pytest.mark.parametrize("starts", [2, pytest.param(4, marks=pytest.mark.faults)])
def test_broadcast_queues_share_a_label_value_and_end_with_their_worker(tmp_path: Path, redis_server: RedisServer, starts: int) -> None:
    """
    However often two workers and a publisher start, they make the label values of one start; what is announced of them ends with them.
    """
    conf = {"broker_url": redis_server.url_of(5)}
    seen: list[set[str]] = []
    environ = {
        **os.environ,
        "TEST_CONF": json.dumps(conf),
        "CELERY_OBS_METRICS_DIR": str(tmp_path / "metrics"),
        "PYTHONPATH": str(APPS),
        "TEST_BROADCAST": "news",
    }
    with Exporter(tmp_path, "--broker-url", str(conf["broker_url"])) as exporter:
        for _ in range(starts):
            with (
                worker(tmp_path, conf, ledger=redis_server.url, name="w1@test", TEST_BROADCAST="news") as one,
                worker(tmp_path, conf, ledger=redis_server.url, name="w2@test", TEST_BROADCAST="news") as other,
            ):
                metrics = Metrics(one.metrics_dir)
                before = metrics.find("celery_task_finished_total", task="brokered.told", queue="news") or 0.0
                subprocess.run([sys.executable, "-c", "import brokered; brokered.tell()"], check=True, env=environ, timeout=60)
                told = functools.partial(metrics.find, "celery_task_finished_total", task="brokered.told", queue="news")
                wait_until(lambda told=told, wanted=before + 2: told() == wanted, what="both workers to have been told")  # type: ignore[misc]  # Bound at once.
                exporter.shows(0, "news")
                assert 5 == len(announced(conf))
                seen.append(_queues_in(metrics.text()) | {dict(labels).get("queue", "") for _, labels in exporter.samples()})
                one.stop()
                other.stop()
            assert {"orders"} == set(announced(conf))
            exporter.shows(None, "news")

    assert [{"", "news", "orders"} | ({"replies"} & found) for found in seen] == seen


def _queues_in(text: str) -> set[str]:
    return {dict(labels).get("queue", "") for _, labels in samples_in(text)}
