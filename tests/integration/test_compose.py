"""
What lies under deploy/compose: accepted by those who read it, with little rights, and of one mind with the rest.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import yaml

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.composed import APP_IMAGE, COMPOSE, DEPLOY, FOLDER, ROOT, SERVICES, collector, loaded
from tests.conftest import find_server
from tests.servers import wait_until


pytestmark = pytest.mark.integration

DEFAULT_PORTS = {"grafana": 3000, "redis": 6379, "redis-exporter": 9121, "rabbitmq": 5672}
"""
Where those listen whose configuration says nothing of it.
"""

HEALTH_IS_SEEN_ELSEWHERE = {"otel-collector": "no program in its image could ask; Prometheus scrapes it"}


every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder compose, beside what it mounts, after ``prepare``.
    """
    folder = checked_out(tmp_path_factory.mktemp("checkout"))
    prepare(folder)
    return folder


def checked_out(root: Path) -> Path:
    """
    Copy deploy/ to *root*, readable for all, whatever rights this checkout has, and return its folder compose.
    """
    shutil.copytree(DEPLOY, root / "deploy", ignore=shutil.ignore_patterns("secrets", ".env"))
    for path in [root / "deploy", *(root / "deploy").rglob("*")]:
        path.chmod(0o755)
    return root / "deploy/compose"


def prepare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run ``prepare`` there.
    """
    return subprocess.run(["sh", folder / "prepare", *arguments], capture_output=True, text=True, check=False, cwd=folder.parent)


# --- those who read it --------------------------------------------------------------------------------------------------------------


def test_the_compose_file_is_valid() -> None:
    """
    It is what the specification of compose files allows.
    """
    pytest.importorskip("check_jsonschema", reason="It has the schema.")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FOLDER / "compose.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("profiles", ["", "demo", "demo,rabbitmq"])
def test_docker_compose_accepts_it(prepared: Path, profiles: str) -> None:
    """
    docker-compose, where it is at hand, reads the file with all that it names, and has nothing to say about it.
    """
    environ = {**os.environ, "COMPOSE_PROFILES": profiles}
    done = subprocess.run(
        [find_tool("docker-compose"), "config", "--quiet"], capture_output=True, text=True, check=False, cwd=prepared, env=environ
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_docker_compose_accepts_what_the_page_lays_over_it(prepared: Path) -> None:
    """
    The overrides of docs/how-to/run-it-all-with-compose.md can be written as they stand there; a second worker is one with another name.
    """
    compose = find_tool("docker-compose")
    page = (ROOT / "docs/how-to/run-it-all-with-compose.md").read_text()
    files = ["--file", "compose.yml"]
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)):
        (prepared / f"override-{number}.yml").write_text(block)
        files += ["--file", f"override-{number}.yml"]
    done = subprocess.run([compose, *files, "config", "--format", "json"], capture_output=True, text=True, check=False, cwd=prepared)

    assert (0, "") == (done.returncode, done.stderr)
    services = json.loads(done.stdout)["services"]
    assert "DATABASE_URL" in {secret["target"] for secret in services["worker"]["secrets"]}
    assert "worker-2" == services["worker-2"]["hostname"]
    assert services["worker"]["command"] == services["worker-2"]["command"]


def find_tool(name: str) -> str:
    """
    Return the path of a program that few machines have; skip the test where this one has not, in CI, too.
    """
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"This test needs {name}.")
    return found


def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """
    promtool reads it as the container has it: with our rules and the targets of this folder.
    """
    shutil.copy(FOLDER / "prometheus.yml", tmp_path)
    shutil.copytree(FOLDER / "targets", tmp_path / "targets")
    shutil.copytree(DEPLOY / "prometheus/rules", tmp_path / "rules")
    done = subprocess.run(
        [find_server("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert f"{len(list((DEPLOY / 'prometheus/rules').glob('*.yml')))} rule files found" in done.stdout


def test_prometheus_has_the_shipped_configuration_with_other_addresses() -> None:
    """
    The two files are one but for the names of machines and the job of those who keep traces and logs.
    """
    shipped = (DEPLOY / "prometheus/prometheus.yml").read_text().replace("localhost:19540", "exporter:19540")
    expected = yaml.safe_load(shipped.replace("localhost:9093", "alertmanager:9093"))
    actual = loaded(FOLDER / "prometheus.yml")
    actual["scrape_configs"] = [job for job in actual["scrape_configs"] if job["job_name"] != "monitoring"]

    assert expected == actual


def test_data_are_kept_as_on_a_machine_of_ones_own() -> None:
    """
    Prometheus has the options of the shipped default.debian, but for where it listens.
    """
    [arguments] = re.findall(r'^ARGS="(.*)"$', (DEPLOY / "prometheus/default.debian").read_text(), re.MULTILINE)
    options = {option for option in shlex.split(arguments) if "listen-address" not in option}

    assert options <= set(SERVICES["prometheus"]["command"])
    assert not [option for option in SERVICES["prometheus"]["command"] if "retention.size" in option]


# --- little rights ------------------------------------------------------------------------------------------------------------------


@every_service
def test_services_may_do_little(service: dict[str, Any]) -> None:
    """
    No root, no capabilities, no way to more of them, a file system that is read only, and a bound on all that it may use.
    """
    assert {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
    }.items() <= service.items()
    assert not {"privileged", "cap_add", "devices"} & service.keys()
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    assert {"cpus", "memory", "pids"} == service["deploy"]["resources"]["limits"].keys()
    assert {"max-size", "max-file"} == service["logging"]["options"].keys()
    assert all(":size=" in mount for mount in service.get("tmpfs", ()))


@every_service
def test_images_are_pinned(service: dict[str, Any]) -> None:
    """
    An image is named by a version; only that of the demo's app, which is built here, has a name of its own.
    """
    name, _, tag = service["image"].rpartition(":")

    assert name
    assert re.fullmatch(r"v?\d+\.\d+\.\d+(-[a-z0-9.]+)?", tag) or service["image"] == APP_IMAGE


@every_service
def test_nothing_listens_beyond_this_machine(service: dict[str, Any]) -> None:
    """
    Ports are published on loopback; the networks of the monitoring lead nowhere, but for who has to go out or be reached.
    """
    for port in service.get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)
        assert any(not (COMPOSE["networks"][network] or {}).get("internal") for network in service["networks"])


@every_service
def test_every_health_is_asked_for(service: dict[str, Any]) -> None:
    """
    Each service has a check of its health, with an end to its patience, or a reason to have none.
    """
    [name] = [name for name, each in SERVICES.items() if each is service]
    check = service["healthcheck"]

    assert (name in HEALTH_IS_SEEN_ELSEWHERE) == check.get("disable", False)
    assert "disable" in check or {"test", "interval", "timeout", "retries"} <= check.keys()


def test_secrets_are_files_and_nothing_else() -> None:
    """
    Each secret is a file in the folder that git ignores; no environment has one in it, but for that of the fake channels' client.
    """
    said = {f"{name} {key}": str(value) for name, service in SERVICES.items() for key, value in service.get("environment", {}).items()}
    named = {key: value for key, value in said.items() if re.search(r"(?i)password|secret|token|key", key)}

    assert all(["file"] == list(secret) and secret["file"].startswith("./secrets/") for secret in COMPOSE["secrets"].values())
    assert {".env", "secrets/"} <= set((FOLDER / ".gitignore").read_text().splitlines())
    assert named
    assert all(value.startswith("/run/secrets/") for value in named.values())
    assert not [value for value in said.values() if urlsplit(value).password]
    assert {"demo-secret"} == set(re.findall(r'"client_secret": "([^"]*)"', (FOLDER / "demo.env").read_text()))


# --- of one mind --------------------------------------------------------------------------------------------------------------------


@every_service
def test_what_a_service_waits_for_is_there(service: dict[str, Any]) -> None:
    """
    It waits for services that there are, and for the health of those that have a check of it.
    """
    for name, how in service.get("depends_on", {}).items():
        assert "service_healthy" != how["condition"] or not SERVICES[name]["healthcheck"].get("disable")
        # Who is not always there may not be needed by a service that is.
        assert set(SERVICES[name].get("profiles", ())) <= set(service.get("profiles", ())) or how["required"] is False


@every_service
def test_all_that_is_mounted_is_there(service: dict[str, Any], prepared: Path) -> None:
    """
    Files and folders are in the checkout, or made by ``prepare``; volumes, configs, secrets and networks are declared.
    """
    for mount in service.get("volumes", ()):
        source = mount["source"] if isinstance(mount, dict) else mount.split(":")[0]
        if source.startswith("."):
            assert (FOLDER / source).exists(), source
            assert mount.endswith(":ro")
        else:
            assert source == "/" or source in COMPOSE["volumes"]
    for config in service.get("configs", ()):
        assert (FOLDER / COMPOSE["configs"][config["source"]]["file"]).is_file()
    for secret in service.get("secrets", ()):
        source = secret["source"] if isinstance(secret, dict) else secret
        assert (prepared / COMPOSE["secrets"][source]["file"]).read_text()
    assert set(service.get("networks", ())) <= COMPOSE["networks"].keys()


def test_nothing_is_declared_in_vain() -> None:
    """
    Each volume, network and secret is used.
    """
    used = json.dumps(list(SERVICES.values()))

    for kind in ("volumes", "networks", "secrets", "configs"):
        for name in COMPOSE[kind]:
            assert re.search(rf'"{re.escape(name)}[":]', used), f"No service uses {name} of {kind}."


class Call(NamedTuple):
    """
    One service's wish to reach another.
    """

    caller: str
    address: str

    def __str__(self) -> str:
        return f"{self.caller} to {self.address}"


def _calls() -> Iterator[Call]:
    prometheus = loaded(FOLDER / "prometheus.yml")
    groups = [group for job in prometheus["scrape_configs"] for group in job.get("static_configs", ())]
    groups += [group for manager in prometheus["alerting"]["alertmanagers"] for group in manager["static_configs"]]
    groups += [group for path in sorted((FOLDER / "targets").iterdir()) for group in loaded(path)]
    yield from (Call("prometheus", target) for group in groups for target in group["targets"])
    for name, service in SERVICES.items():
        for value in map(str, service.get("environment", {}).values()):
            if re.fullmatch(r"(\w+://)?[a-z-]+:\d+(/\w+)?", value):
                yield Call(name, urlsplit(value if "://" in value else f"//{value}").netloc)


CALLS = sorted(set(_calls()))


def ports_of(name: str) -> set[int]:
    """
    Return the ports where a service listens for others.
    """
    service = SERVICES[name]
    command = " ".join(service.get("command", ()))
    found = {int(port) for port in re.findall(r"listen-address=0\.0\.0\.0:(\d+)", command)}
    if name in DEFAULT_PORTS:
        found.add(DEFAULT_PORTS[name])
    if name in {"loki", "tempo"}:
        config = loaded(DEPLOY / name / f"{name}.yml")
        found.add(config["server"]["http_listen_port"])
        protocols = config.get("distributor", {}).get("receivers", {}).get("otlp", {}).get("protocols", {})
        found |= {int(protocol["endpoint"].removeprefix("0.0.0.0:")) for protocol in protocols.values()}
    if name == "otel-collector":
        config = collector()
        found |= {int(protocol["endpoint"].removeprefix("0.0.0.0:")) for protocol in config["receivers"]["otlp"]["protocols"].values()}
        [reader] = config["service"]["telemetry"]["metrics"]["readers"]
        found.add(reader["pull"]["exporter"]["prometheus"]["port"])
    return found


def networks_of(name: str) -> set[str]:
    """
    Return the networks of a service, or of the one whose network it shares.
    """
    mode = SERVICES[name].get("network_mode", "")
    return networks_of(mode.removeprefix("service:")) if mode.startswith("service:") else set(SERVICES[name].get("networks", ()))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_whoever_is_called_listens_on_a_common_network(call: Call) -> None:
    """
    Each address in a configuration is a service that listens on that port, and a network leads there.
    """
    host, port = call.address.split(":")
    host = call.caller if host == "localhost" else host

    assert int(port) in ports_of(host)
    assert networks_of(call.caller) & networks_of(host)


def test_every_published_port_is_listened_on() -> None:
    """
    What this machine's ports lead to is there.
    """
    published = {(name, int(port.split(":")[-1])) for name, service in SERVICES.items() for port in service.get("ports", ())}

    assert {("exporter", 19540), ("prometheus", 9090), ("alertmanager", 9093), ("grafana", 3000)} == published
    assert all(port in ports_of(name) for name, port in published)


def test_grafana_is_told_where_everything_is() -> None:
    """
    Its environment has each variable of the data sources, dashboards are mounted where their provider looks, and the first page is one of them.
    """
    grafana = SERVICES["grafana"]
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)\}", (DEPLOY / "grafana/provisioning/datasources/celery-obs.yml").read_text()))
    [provider] = loaded(DEPLOY / "grafana/provisioning/dashboards/celery-obs.yml")["providers"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert asked <= grafana["environment"].keys()
    assert f"../grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert provider["options"]["path"] == str(home.parent)
    assert (DEPLOY / "grafana/dashboards" / home.name).is_file()


def test_alertmanager_finds_its_secrets() -> None:
    """
    Whatever file the shipped configuration reads under secrets/ is mounted there.
    """
    asked = set(re.findall(r"_file: (\S+)", (DEPLOY / "alertmanager/alertmanager.yml").read_text()))

    assert asked == {secret["target"] for secret in SERVICES["alertmanager"]["secrets"]}


def test_those_who_share_folders_share_a_user() -> None:
    """
    Worker, beat, exporter and the collector of lines are one user, to whom the folders belong.
    """
    sharing = [
        service
        for service in SERVICES.values()
        if any(str(mount).startswith(("metrics:", "logs:")) for mount in service.get("volumes", ()))
    ]
    [user] = {service["user"] for service in sharing}
    uid, gid = user.split(":")

    assert len(sharing) >= 5
    for name in ("metrics", "logs"):
        assert f"uid={uid},gid={gid}," in COMPOSE["volumes"][name]["driver_opts"]["o"]
    assert f"USER {user}" in (FOLDER / "Dockerfile").read_text()
    assert {user} == {service["user"] for service in SERVICES.values() if service["image"] == APP_IMAGE}


@pytest.mark.parametrize(("name", "node"), [("worker", "celery@worker"), ("beat", "beat@beat")])
def test_a_node_keeps_its_name(name: str, node: str) -> None:
    """
    A container that is replaced is the node that it was, so that the one before is not missed, and it is asked for its own health.
    """
    service = SERVICES[name]
    host = service["hostname"]
    named = [word.removeprefix("--hostname=") for word in service["command"] if word.startswith("--hostname=")] or ["beat@%h"]

    assert [node] == [word.replace("%h", host) for word in named]
    assert f'--node "{node}"' in service["healthcheck"]["test"][1].replace("$(hostname)", host)


def test_the_sidecar_reads_where_the_worker_writes() -> None:
    """
    Worker, beat and exporter have one metrics directory, and it is mounted.
    """
    for name in ("worker", "beat", "exporter", "demo-load"):
        assert f"metrics:{SERVICES[name]['environment']['CELERY_OBS_METRICS_DIR']}" in SERVICES[name]["volumes"]


# --- the image ----------------------------------------------------------------------------------------------------------------------


def test_the_image_is_made_of_what_its_context_has() -> None:
    """
    Whatever the Dockerfile copies is in the checkout, and let through by the list beside it, which begins with nothing.
    """
    dockerfile, ignored = (FOLDER / "Dockerfile").read_text(), (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE) for name in line.split()[:-1]]

    assert "*" == next(line for line in ignored if not line.startswith("#"))
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    assert ["python:${PYTHON} AS build", "python:${PYTHON}"] == re.findall(r"^FROM (.*)$", dockerfile, re.MULTILINE)


def test_the_image_is_built_for_the_demo_only() -> None:
    """
    One service builds it, in the profile demo; an app of one's own is never overwritten by what this folder builds.
    """
    [built] = [service for service in SERVICES.values() if "build" in service]

    assert ["demo"] == built["profiles"]
    assert built["image"] == APP_IMAGE
    assert (FOLDER / built["build"]["context"] / built["build"]["dockerfile"]).samefile(FOLDER / "Dockerfile")


# --- the scripts --------------------------------------------------------------------------------------------------------------------


def test_prepare_makes_every_secret_once(prepared: Path) -> None:
    """
    Secrets are readable in a folder that only its owner may enter; running it again changes nothing.
    """
    files = sorted((prepared / "secrets").iterdir())
    before = {path.name: path.read_text() for path in files}

    again = prepare(prepared)

    assert 0 == again.returncode
    assert before == {path.name: path.read_text() for path in sorted((prepared / "secrets").iterdir())}
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} <= before.keys()
    assert 0o700 == stat.S_IMODE((prepared / "secrets").stat().st_mode)
    assert {0o444} == {stat.S_IMODE(path.stat().st_mode) for path in files}
    assert 0o600 == stat.S_IMODE((prepared / ".env").stat().st_mode)


def test_the_passwords_agree(prepared: Path) -> None:
    """
    What the servers want to hear is what the others say, and no two installations have the same.
    """
    text = {path.name: path.read_text() for path in (prepared / "secrets").iterdir()}
    exporter = json.loads(text["redis-exporter.json"])

    assert f"requirepass {text['redis-password']}\n" == text["redis.conf"]
    assert {SERVICES["redis-exporter"]["environment"]["REDIS_ADDR"]: text["redis-password"]} == exporter
    for name in ("broker-url", "redis-url"):
        url = urlsplit(text[name])
        assert ("redis", "redis", 6379, text["redis-password"]) == (url.scheme, url.hostname, url.port, url.password)
    assert len(text["redis-password"]) >= 32
    assert text["redis-password"] != text["rabbitmq-password"]


def test_the_key_for_tokens_is_one(prepared: Path) -> None:
    """
    Tokens can be encrypted with the key that ``prepare`` makes.
    """
    fernet = pytest.importorskip("cryptography.fernet")

    assert fernet.Fernet((prepared / "secrets/token-keys").read_text())


def test_rabbitmq_may_be_the_broker(tmp_path: Path) -> None:
    """
    ``prepare rabbitmq`` names the other profile and the other URL; a broker is not changed by the way.
    """
    folder = checked_out(tmp_path)

    first, other, wrong = prepare(folder, "rabbitmq"), prepare(folder, "redis"), prepare(folder, "kafka")

    url = urlsplit((folder / "secrets/broker-url").read_text())
    assert 0 == first.returncode
    assert ("amqp", "rabbitmq", 5672, "celery") == (url.scheme, url.hostname, url.port, url.username)
    assert f"default_pass = {url.password}\n" in (folder / "secrets/rabbitmq.conf").read_text()
    assert "COMPOSE_PROFILES=demo,rabbitmq\n" in (folder / ".env").read_text()
    assert [2, 2] == [other.returncode, wrong.returncode]
    assert "expected the broker to stay what it is, got redis" in other.stderr
    assert "expected redis or rabbitmq as the broker, got 'kafka'" in wrong.stderr


def test_a_checkout_that_containers_cannot_read_is_refused(tmp_path: Path) -> None:
    """
    Prometheus would say "permission denied" at its start; this says so before, and what to do, and makes nothing.
    """
    folder = checked_out(tmp_path)
    (tmp_path / "deploy/prometheus/rules").chmod(0o750)

    done = prepare(folder)

    assert 2 == done.returncode
    assert "got ../prometheus/rules, which" in done.stderr
    assert "chmod -R o+rX" in done.stderr
    assert not (folder / ".env").exists()


def with_secrets(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """
    Run *command* with the secrets in *folder*.
    """
    environ = {"PATH": os.environ["PATH"], "SECRETS_DIR": str(folder)}
    done = subprocess.run(["sh", FOLDER / "with-secrets", *command], capture_output=True, check=False, env=environ)
    # Not as text: every kind of end of a line would become the same.
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(lambda text: text.rstrip("\n")).filter(bool)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUES, max_size=10))
@example(["redis://:a b$c'd\"`e`\\@redis/0", "$(exit 9)", "-n"])
def test_a_secret_becomes_the_variable_that_it_is_named_after(tmp_path: Path, values: list[str]) -> None:
    """
    Whatever stands in the file is the value, to the letter, but for the end of its last line; other files are other people's.
    """
    expected = {f"SECRET_{number}": value for number, value in enumerate(values)}
    for path in tmp_path.iterdir():
        path.unlink()
    for name, value in expected.items():
        (tmp_path / name).write_bytes(f"{value}\n".encode())
    (tmp_path / "redis.conf").write_text("requirepass x")

    done = with_secrets(tmp_path, "env", "--null")

    variables = dict(each.split("=", 1) for each in done.stdout.rstrip("\0").split("\0"))
    assert expected == {name: value for name, value in variables.items() if re.match(r"SECRET_\d|redis", name)}


def test_a_command_without_secrets_runs(tmp_path: Path) -> None:
    """
    An empty folder, and none, are no secrets, and the command's exit code is passed on.
    """
    assert [7, 7] == [with_secrets(folder, "sh", "-c", "exit 7").returncode for folder in (tmp_path, tmp_path / "none")]


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    """
    A worker without its password would try for ever; this says which file is empty, and runs nothing.
    """
    (tmp_path / "CELERY_BROKER_URL").touch()

    done = with_secrets(tmp_path, "echo", "ran")

    assert (2, "") == (done.returncode, done.stdout)
    assert f"the secret CELERY_BROKER_URL is {tmp_path}/CELERY_BROKER_URL, which is empty" in done.stderr


def test_log_files_do_not_grow_for_ever(tmp_path: Path) -> None:
    """
    What is too large is put aside, in the place of the one before; what is no longer written to goes; the rest stays.
    """
    now = {"worker-a.log": "x" * 200, "worker-a.log.1": "old", "worker-b.log": "short", "worker-gone.log": "y", "other.txt": "mine"}
    for name, text in now.items():
        (tmp_path / name).write_text(text)
    os.utime(tmp_path / "worker-gone.log", (0, 0))
    environ = {"PATH": os.environ["PATH"], "LOG_SIZE": "100", "LOG_EVERY": "60"}

    with subprocess.Popen(["sh", FOLDER / "rotate-logs", tmp_path], env=environ, start_new_session=True) as running:
        wait_until(lambda: not (tmp_path / "worker-gone.log").exists(), what="the old file to go")
        running.terminate()
        ended = running.wait(10)

    assert 0 == ended
    assert {"worker-a.log.1": "x" * 200, "worker-b.log": "short", "other.txt": "mine"} == {
        path.name: path.read_text() for path in tmp_path.iterdir()
    }


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """
    It says what it expected instead of waiting for files that never come.
    """
    done = subprocess.run(["sh", FOLDER / "rotate-logs", tmp_path / "none"], capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "expected a folder of log files" in done.stderr


# --- the page -----------------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_is_so(prepared: Path) -> None:
    """
    Addresses, secrets and variables that docs/how-to/run-it-all-with-compose.md names are those that there are.
    """
    page = (ROOT / "docs/how-to/run-it-all-with-compose.md").read_text()
    published = {port.split(":")[1] for service in SERVICES.values() for port in service.get("ports", ())}
    [table] = re.findall(r"\| file \| what to do with it \|\n(.*?)\n\n", page, re.DOTALL)
    variables = set(re.findall(r"^([A-Z_]+)=", page, re.MULTILINE))
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)

    assert published == set(re.findall(r"\| `http://localhost:(\d+)` \|", page))
    assert set(re.findall(r"`([a-z.-]+)`", table)) <= {path.name for path in (prepared / "secrets").iterdir()}
    assert variables <= set(re.findall(r"^([A-Z_]+)=", (FOLDER / "env.example").read_text(), re.MULTILINE))
    for name, service in ((name, each) for block in blocks for name, each in yaml.safe_load(block)["services"].items()):
        assert name in SERVICES or "image" in service or service["extends"]["service"] in SERVICES
    assert all(f"docker compose {word}" in page for word in ("up", "down", "exec", "pull"))
