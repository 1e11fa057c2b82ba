"""
Real servers for tests: a private Redis and a private RabbitMQ, on loopback, on free ports, gone when the test is.

A server is a context manager.  It starts on entering, has answered as *itself* by then (not some other server on the same port), and its
processes are stopped by their ids on leaving, whatever happened.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import warnings

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest


if TYPE_CHECKING:
    from typing_extensions import Self

    from .certificates import Authority


__all__ = [
    "RabbitMQServer",
    "RedisCluster",
    "RedisSentinel",
    "RedisServer",
    "Relay",
    "free_port",
    "kombu_connection",
    "missing",
    "tls_options",
    "wait_until",
]


def free_port() -> int:
    """
    Ask the kernel for a TCP port on loopback that is free.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(holds: Callable[[], object], *, within: float = 30.0, what: str = "the condition") -> None:
    """
    Poll *holds* until it returns something true, and fail the test when it has not done so *within* seconds.

    These are for a busy machine to keep: only a test that fails waits for so long.
    """
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"Waited {within:g} s for {what}, in vain.")
        time.sleep(0.02)


def missing(what: str) -> None:
    """
    Skip the test because *what* is not installed; in CI, where it has to be, fail instead.
    """
    message = f"This test needs {what}, which is not installed."
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def kombu_connection(url: str, **transport_options: object) -> Iterator[Any]:
    """
    Connect as Celery does; on leaving, close the sockets that kombu's channels leave to the garbage collector, whose warnings are errors here.
    """
    from kombu import Connection

    connection = Connection(url, transport_options=transport_options)
    try:
        yield connection
    finally:
        connection.release()
        del connection
        collect()


def collect() -> None:
    """
    Collect garbage, sockets included: kombu and Celery's clients leave theirs to the collector, whose warnings fail whichever test runs then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class _Process:
    """
    One child process with a log file, stopped by its id.
    """

    def __init__(self, command: list[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._gone = False
        with log.open("ab") as sink:
            # A session of its own, so that a Ctrl-C in the terminal reaches the test only, which then stops its servers in order.
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._child.pid

    def is_running(self) -> bool:
        return self._child.poll() is None

    def stop(self, *, within: float = 10.0) -> None:
        """
        Ask it to go, and make it go when it has not gone *within* seconds.
        """
        if self.is_running():
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(within)
        self.kill()

    def kill(self) -> None:
        # The whole group: RabbitMQ's script stays the parent of the Erlang process.
        self.signal(signal.SIGKILL)
        self._child.wait()
        self._gone = True

    def signal(self, number: int) -> None:
        """
        Send a signal to the process and what it started; to none when they are gone.
        """
        if self._gone:  # Its id may be another process's by now.
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def tail(self) -> str:
        """
        Return the end of what it wrote, for the message of a failed start.
        """
        return self._log.read_text(errors="replace")[-2000:]


class RedisServer:
    """
    A Redis of one's own.

    Args:
        password: What clients have to say to ``AUTH``; nothing by default.

        options: More lines of the configuration, such as ``{"maxmemory": "10mb"}``.

    Attributes:
        port: The TCP port, the same after :meth:`restart`.

        socket: The unix socket's path.
    """

    def __init__(self, *, password: str = "", options: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.password = password
        self._options = dict(options or {})
        self._directory = Path(tempfile.mkdtemp(prefix="obs-redis-"))
        self.socket = self._directory / "redis.sock"
        self._process: _Process | None = None

    @property
    def url(self) -> str:
        return self.url_of(0)

    @property
    def socket_url(self) -> str:
        """
        The unix socket as Celery spells it in a broker URL.
        """
        return f"redis+socket://{self.socket}?virtual_host=0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "The server was not started."
        return self._process.pid

    def url_of(self, database: int) -> str:
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """
        Start, and return once the process that we started answers on the port.
        """
        program = shutil.which("redis-server")
        if program is None:
            missing("redis-server")
            return
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(self._directory),
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            **({"requirepass": self.password} if self.password else {}),
            **self._options,
        }
        command = [program, *(word for key, value in options.items() for word in (f"--{key}", value))]
        self._process = process = _Process(command, log=self._directory / "redis.log")
        try:
            wait_until(self._answers, what=f"redis-server on port {self.port}")
        except BaseException:
            print(process.tail())  # noqa: T201 -- pytest shows it beside the failure.
            self.stop()
            raise

    def stop(self) -> None:
        """
        Stop the process; a server that is not running stays so.
        """
        if self._process is not None:
            # Results of Celery up to 5.5 talk to Redis when they are collected, and try for long when it is gone.
            collect()
            # A paused process cannot obey.
            self._process.signal(signal.SIGCONT)
            self._process.stop()

    def kill(self) -> None:
        """
        End it as the OOM killer would.
        """
        assert self._process is not None, "The server was not started."
        self._process.kill()

    def restart(self) -> None:
        """
        Come back on the same port, with nothing stored.
        """
        self.stop()
        self.start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """
        Accept connections and answer nothing for as long as the block runs.
        """
        assert self._process is not None, "The server was not started."
        self._process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.signal(signal.SIGCONT)

    def _answers(self) -> bool:
        import redis

        assert self._process is not None
        if not self._process.is_running():
            pytest.fail(f"redis-server ended at once:\n{self._process.tail()}")
        try:
            with redis.Redis(host="127.0.0.1", port=self.port, password=self.password or None, socket_timeout=2) as client:
                return bool(client.info("server")["process_id"] == self._process.pid)
        except redis.exceptions.RedisError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


class Relay:
    """
    Stands before a server on loopback, and makes it slow, or loses its answers.

    Attributes:
        port: The TCP port to connect to instead.

        to: The server's port; where nothing listens, the connection ends.

        delay: Seconds that each answer is held back.

        loses: Of so many answers, those that come next, none arrives: the connection ends instead.  The server has done what it was asked.

        asked: How many requests came.
    """

    def __init__(self, to: int) -> None:
        self.to = to
        self.delay = 0.0
        self.loses = 0
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # It is closed.
            while True:
                client, _ = self._socket.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.to))
                except OSError:
                    self.asked += 1
                    client.close()
                    continue
                self._open += [client, server]
                threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                self.asked += 1
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if self.loses:
                    self.loses -= 1
                    break
                time.sleep(self.delay)  # It is what makes it slow.
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def tls_options(authority: Authority, *, port: int, clients: bool) -> dict[str, str]:
    """
    Return what a Redis needs to listen with TLS on *port*, too.

    Args:
        clients: Whether they have to show a certificate.
    """
    server = authority.issue("redis")
    return {
        "tls-port": str(port),
        "tls-cert-file": str(server.cert),
        "tls-key-file": str(server.key),
        "tls-ca-cert-file": str(authority.cert),
        "tls-auth-clients": "yes" if clients else "no",
    }


class RedisSentinel:
    """
    A master, its replica, and sentinels that watch them.

    Args:
        sentinels: How many; several take some seconds to find each other.

        password: What clients have to say to the sentinels; the servers have none.

    Attributes:
        name: What the sentinels call the master.
    """

    name = "obs"

    def __init__(self, *, sentinels: int = 3, password: str = "") -> None:
        self.password = password
        # A master waits five seconds for more replicas otherwise.
        self._first = RedisServer(options={"repl-diskless-sync-delay": "0"})
        self._second = RedisServer(options={"replicaof": f"127.0.0.1 {self._first.port}", "repl-diskless-sync-delay": "0"})
        self._directory = Path(tempfile.mkdtemp(prefix="obs-sentinel-"))
        self._sentinels = [free_port() for _ in range(sentinels)]
        self._processes: list[_Process] = []

    @property
    def url(self) -> str:
        """
        How kombu spells it.
        """
        return ";".join(f"sentinel://127.0.0.1:{port}/0" for port in self._sentinels) + f"?master_name={self.name}"

    @property
    def master(self) -> RedisServer:
        """
        The server that the sentinels name.
        """
        return next(server for server in (self._first, self._second) if server.port == self._master_port(self._sentinels[0]))

    def start(self) -> None:
        """
        Start, and return once all sentinels know each other and the replica follows.
        """
        program = shutil.which("redis-server")
        if program is None:
            missing("redis-server")
            return
        try:
            self._first.start()
            self._second.start()
            # The sentinels look once, and then every ten seconds.
            wait_until(lambda: _replication(self._second.port).get("master_link_status") == "up", what="the replica to follow")
            for port in self._sentinels:
                settings = self._directory / f"{port}.conf"  # They write into it.
                settings.write_text(
                    f"port {port}\nbind 127.0.0.1\ndir {self._directory}\n"
                    f"sentinel monitor {self.name} 127.0.0.1 {self._first.port} {len(self._sentinels) // 2 + 1}\n"
                    f"sentinel down-after-milliseconds {self.name} 500\n"
                    f"sentinel failover-timeout {self.name} 2000\n"
                    + (f"requirepass {self.password}\nsentinel sentinel-pass {self.password}\n" if self.password else "")
                )
                self._processes.append(_Process([program, str(settings), "--sentinel"], log=self._directory / f"{port}.log"))
            wait_until(self._is_ready, within=30, what="the sentinels to know each other")
        except BaseException:
            for process in self._processes:
                print(process.tail())  # noqa: T201 -- pytest shows it beside the failure.
            self.stop()
            raise

    def fail_over(self) -> None:
        """
        Kill the master, once the other one has all that was written, and return when every sentinel names that, which takes writes by then.
        """
        old = self.master
        other = self._second if old is self._first else self._first
        offset = _replication(old.port)["master_repl_offset"]
        wait_until(lambda: _replication(other.port)["slave_repl_offset"] >= offset, what="the replica to have all that was written")
        old.kill()
        wait_until(
            lambda: all(self._master_port(port) == other.port for port in self._sentinels) and _role(other.port) == "master",
            within=30,
            what="the sentinels to have elected the replica",
        )

    def come_back(self) -> None:
        """
        Start the server that `fail_over` killed, and return once it follows the other one.
        """
        master = self.master
        other = self._second if master is self._first else self._first
        other.start()
        wait_until(
            lambda: (link := _replication(other.port)).get("master_link_status") == "up" and int(link["master_port"]) == master.port,
            within=60,
            what="the old master to follow the new one",
        )

    def stop(self) -> None:
        """
        Stop all processes; what is not running stays so.
        """
        for process in self._processes:
            process.stop()
        self._second.stop()
        self._first.stop()

    def _is_ready(self) -> bool:
        return _role(self._second.port) == "slave" and all(self._knows_everybody(port) for port in self._sentinels)

    def _knows_everybody(self, port: int) -> bool:
        import redis

        try:
            with redis.Redis(port=port, socket_timeout=2, password=self.password or None) as client:
                known = client.sentinel_master(self.name)
                replicas = client.sentinel_slaves(self.name)
        except redis.exceptions.RedisError:
            return False
        return known["num-other-sentinels"] == len(self._sentinels) - 1 and [each["master-link-status"] for each in replicas] == ["ok"]

    def _master_port(self, port: int) -> int:
        import redis

        with redis.Redis(port=port, socket_timeout=2, password=self.password or None) as client:
            return int(client.sentinel_get_master_addr_by_name(self.name)[1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        for server in (self._first, self._second):
            shutil.rmtree(server._directory, ignore_errors=True)
        shutil.rmtree(self._directory, ignore_errors=True)


class RedisCluster:
    """
    A Redis Cluster of three masters.
    """

    def __init__(self) -> None:
        self.nodes = [self._node() for _ in range(3)]

    @staticmethod
    def _node() -> RedisServer:
        return RedisServer(
            options={
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-port": str(free_port()),
                "cluster-node-timeout": "2000",
                "cluster-require-full-coverage": "no",
            }
        )

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """
        Start, share the slots out, and return once every node says that the cluster is well.
        """
        import redis

        try:
            for number, node in enumerate(self.nodes):
                self.nodes[number] = self._started(node)
            share = 16384 // len(self.nodes) + 1
            first = self.nodes[0]
            for number, node in enumerate(self.nodes):
                with redis.Redis(port=node.port, socket_timeout=2) as client:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, min(16383, (number + 1) * share - 1))
                    client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                    if node is not first:
                        client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first._options["cluster-port"])
            wait_until(lambda: all(map(self._is_well, self.nodes)), within=30, what="the nodes to know each other")
        except BaseException:
            self.stop()
            raise

    def _started(self, node: RedisServer) -> RedisServer:
        """
        Start a node, or another one where one of its two ports was taken since they were chosen.
        """
        try:
            node.start()
        except pytest.fail.Exception:
            shutil.rmtree(node._directory, ignore_errors=True)
            node = self._node()
            node.start()
        return node

    def node_of(self, key: str) -> RedisServer:
        """
        Return the node that *key* lies on.
        """
        import redis

        with redis.Redis(port=self.nodes[0].port, socket_timeout=2) as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", key))
        return self.nodes[slot // (16384 // len(self.nodes) + 1)]

    def stop(self) -> None:
        """
        Stop all nodes; one that is not running stays so.
        """
        for node in self.nodes:
            node.stop()

    def lose_a_master(self) -> None:
        """
        Kill a master, bring it back with nothing stored, and return once every node says that the cluster is well.
        """
        self.nodes[0].kill()
        self.nodes[0].start()
        wait_until(lambda: all(map(self._is_well, self.nodes)), within=30, what="the nodes to know each other again")

    def _is_well(self, node: RedisServer) -> bool:
        import redis

        with redis.Redis(port=node.port, socket_timeout=2) as client:
            info: bytes = client.execute_command("CLUSTER", "INFO")
        return all(line in info for line in (b"cluster_state:ok\r", b"cluster_slots_ok:16384\r", b"cluster_known_nodes:3\r"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        for node in self.nodes:
            shutil.rmtree(node._directory, ignore_errors=True)


def _role(port: int) -> str:
    return str(_replication(port)["role"])


def _replication(port: int) -> Mapping[str, Any]:
    import redis

    with redis.Redis(port=port, socket_timeout=2) as client:
        found: Any = client.info("replication")
    return dict(found)


class RabbitMQServer:
    """
    A RabbitMQ node of one's own, with its own Erlang port mapper, cookie and data; a boot takes several seconds.

    Attributes:
        port: The AMQP port, the same after :meth:`restart`, which keeps durable queues.
    """

    user = "guest"
    password = "guest"

    def __init__(self) -> None:
        self.port = free_port()
        self._mapper_port = free_port()
        self._distribution_port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="obs-rabbitmq-"))
        self._mapper: _Process | None = None
        self._process: _Process | None = None

    @property
    def url(self) -> str:
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}//"

    @property
    def pid(self) -> int:
        assert self._process is not None, "The server was not started."
        return self._process.pid

    def start(self) -> None:
        """
        Start, and return once the node answers on its port.
        """
        program, mapper = _rabbitmq_program(), shutil.which("epmd")
        if program is None or mapper is None:
            missing("rabbitmq-server with Erlang's epmd")
            return
        try:
            if self._mapper is None or not self._mapper.is_running():
                # Ours, in the foreground: a node would otherwise leave a daemon behind.
                command = [mapper, "-address", "127.0.0.1", "-port", str(self._mapper_port)]
                self._mapper = _Process(command, log=self._directory / "epmd.log")
                wait_until(lambda: _listens(self._mapper_port), what="epmd")
            self._process = _Process([program], log=self._directory / "rabbitmq.log", env=self._environment())
            wait_until(self._answers, within=90, what=f"rabbitmq-server on port {self.port}")
        except BaseException:
            if self._process is not None:
                print(self._process.tail())  # noqa: T201 -- pytest shows it beside the failure.
            self.stop()
            raise

    def stop(self) -> None:
        """
        Stop the node and its port mapper; what is not running stays so.
        """
        if self._process is not None:
            self._process.signal(signal.SIGCONT)
            self._process.stop(within=60)
            wait_until(lambda: not _listens(self.port), what="the node to leave its port")
        if self._mapper is not None:
            self._mapper.stop()

    def kill(self) -> None:
        """
        End the node as the OOM killer would.
        """
        assert self._process is not None, "The server was not started."
        self._process.kill()

    def restart(self) -> None:
        """
        Come back on the same port, with the durable queues.
        """
        self.stop()
        self.start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """
        Accept connections and answer nothing for as long as the block runs.
        """
        assert self._process is not None, "The server was not started."
        self._process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.signal(signal.SIGCONT)

    def _environment(self) -> dict[str, str]:
        config = self._directory / "rabbitmq.conf"
        config.write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nvm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 1MB\n"
        )
        (self._directory / "plugins").write_text("[].\n")
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self._directory),
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(self._directory / "none"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._directory / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._directory / "plugins"),
            "RABBITMQ_NODENAME": f"obs{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self._directory / "data"),
            "RABBITMQ_LOG_BASE": str(self._directory / "log"),
            "RABBITMQ_PID_FILE": str(self._directory / "pid"),
            # One scheduler: the tests share the machine.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    def _answers(self) -> bool:
        import amqp

        assert self._process is not None
        if not self._process.is_running():
            pytest.fail(f"rabbitmq-server ended at once:\n{self._process.tail()}")
        connection = amqp.Connection(f"127.0.0.1:{self.port}", userid=self.user, password=self.password, connect_timeout=2, read_timeout=5)
        try:
            connection.connect()
            return f"obs{self.port}@" in str(connection.server_properties.get("cluster_name", ""))
        except (OSError, amqp.exceptions.AMQPError):
            return False
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _rabbitmq_program() -> str | None:
    """
    Find the server's own script; the one that Debian puts on PATH changes to another user and to the system's directories.
    """
    real = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return str(real) if real.exists() else shutil.which("rabbitmq-server")
