"""
``celery-obs doctor``: one line per check, OK or what to do.

It only looks: it makes no directory, writes no file and no key, and declares no queue.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from celery_obs.exceptions import ConfigurationError
from celery_obs.recorder.about import read_about
from celery_obs.recorder.format import SHORTAGE, VERSION, folder_name, node_name
from celery_obs.recorder.metrics_dir import look_at_metrics_dir
from celery_obs.recorder.opening import open_metrics_dir, read_file
from celery_obs.settings import Settings, load
from celery_obs.state.broker import Broker, of_app, of_url, reach, reason_of, shown
from celery_obs.state.connection import connect
from celery_obs.telemetry.switches import EXTRAS, Finding, is_installed, reaches, switches

from .operate import metrics_dir_option, print_json
from .probe import Heartbeat, Unreadable, heartbeats, standby


__all__ = ["Finding", "Surroundings", "doctor", "examine", "examine_numbers", "examine_switches"]


_PATIENCE = 3.0
_TOLERATED_SKEW = 1.0
_STALE = 30.0
_MOST_NAMES = 5
_HEARD = {"tracer": "Celery's tracer calls us directly", "signals": "Celery's signals call us"}
_STATUS = {"OK": "ok", "FAIL": "fail", "--": "not_checked"}


class Surroundings(NamedTuple):
    """
    What is to be checked.
    """

    metrics_dir: Path
    redis: str | Broker | None
    broker: Broker | None
    wrong_broker: str = ""


def examine(
    surroundings: Surroundings, *, clock: Callable[[], float] = time.time, installed: Callable[[str], bool] | None = None
) -> Iterator[Finding]:
    """
    Make all checks, one after the other; each answers within a few seconds.
    """
    yield _metrics_dir(surroundings.metrics_dir)
    yield _broker(surroundings.broker, surroundings.wrong_broker)
    yield from _redis(surroundings.redis, clock)
    yield from _nodes(surroundings.metrics_dir, clock)
    with contextlib.suppress(OSError):
        os.close(open_metrics_dir(surroundings.metrics_dir))
        yield from _shortages(surroundings.metrics_dir)
    yield from examine_numbers(surroundings.metrics_dir, clock=clock)
    yield from _extras(installed or is_installed)


def _metrics_dir(path: Path) -> Finding:
    name = "metrics directory"
    try:
        is_there = look_at_metrics_dir(path)
    except ConfigurationError as error:
        return Finding("FAIL", name, str(error))
    if not is_there:
        advice = "A worker makes it when it starts. If one is running, it uses another directory: compare CELERY_OBS_METRICS_DIR."
        return Finding("--", name, f"{path} does not exist. {advice}")
    return Finding("OK", name, f"{path}, owned by uid {path.stat().st_uid}, is writable by uid {os.geteuid()}.")


def _broker(broker: Broker | None, wrong: str) -> Finding:
    name = "broker"
    if wrong:
        return Finding("FAIL", name, wrong)
    if broker is None:
        return Finding("--", name, "not checked. Give --broker-url, or run celery -A proj obs doctor.")
    problem = reach(broker, within=_PATIENCE)
    if problem:
        return Finding("FAIL", name, f"cannot connect to {broker.shown}: {problem}. Is it running, and are host, port and password right?")
    return Finding("OK", name, f"{broker.shown} answers.")


def _redis(redis: str | Broker | None, clock: Callable[[], float]) -> Iterator[Finding]:
    if not redis:
        yield Finding("--", "redis", "none given, so cluster features are off. To have them, give --redis-url.")
        return
    place = shown(redis)
    try:
        with contextlib.closing(connect(redis, patience=_PATIENCE)) as client:
            before = clock()
            seconds, microseconds = _time_of(client)
            after = clock()
    except Exception as error:  # noqa: BLE001 -- a bad URL is a ConfigurationError, a dead server is Redis's own.
        problem = str(error) if isinstance(error, ConfigurationError) else reason_of(error, redis)
        yield Finding("FAIL", "redis", f"cannot use {place}: {problem}. Is it running, and are host, port and password right?")
        return
    yield Finding("OK", "redis", f"{place} answers in {(after - before) * 1000:.1f} ms.")
    skew = seconds + microseconds / 1e6 - (before + after) / 2
    if abs(skew) > _TOLERATED_SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        advice = "Waiting times will be wrong by that much: synchronise the clocks (chrony or systemd-timesyncd)."
        yield Finding("FAIL", "clock", f"Redis is {abs(skew):.1f} s {direction} this machine. {advice}")
        return
    yield Finding("OK", "clock", f"differs from that of Redis by {abs(skew):.3f} s.")


def _time_of(client: Any) -> tuple[int, int]:
    # Any: redis-py says that TIME may be awaitable, which it is not in this client.
    seconds, microseconds = client.time()
    return int(seconds), int(microseconds)


def _nodes(metrics_dir: Path, clock: Callable[[], float]) -> Iterator[Finding]:
    try:
        beats = heartbeats(str(metrics_dir))
    except Unreadable as problem:
        yield Finding("--", "nodes", str(problem))
        return
    for beat in beats:
        age = clock() - beat.touched_at
        version = beat.facts.get("version")
        runs = f", celery_obs {version}" if version else ""
        facts = f"pid {beat.pid}{runs}, heartbeat {max(age, 0.0):.1f} s ago"
        name = f"{beat.role} {beat.node}"
        if age > _STALE:
            advice = f"If it is gone for good: celery-obs forget-node {beat.node}; otherwise look at its log."
            yield Finding("FAIL", name, f"{facts}, which is too long. {advice}")
        elif not beat.ready:
            yield Finding("FAIL", name, f"{facts}, not ready. Can it reach its broker?")
        else:
            yield Finding("OK", name, f"{facts}; it {standby(beat)}." if standby(beat) else f"{facts}.")
    if not any(beat.role == "beat" for beat in beats):
        yield Finding("--", "beat", "no heartbeat of a beat here. Fine where beat runs elsewhere, or inside a worker (-B).")


def _shortages(metrics_dir: Path) -> Iterator[Finding]:
    """
    Tell which nodes ran out of room for new series, and what would have been enough.
    """
    for path in sorted(metrics_dir.glob(f"*/{SHORTAGE}")):
        node = node_name(path.parent.name)
        try:
            lack = json.loads(read_file(path))
            setting, given, needed = str(lack["setting"]), int(lack["given"]), int(lack["needed"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
            continue
        if node is not None:
            text = f"{setting} is {given}, and at least {needed} are needed; newer series are not recorded. Set {setting} to {2 * needed}."
            yield Finding("FAIL", f"room of {node}", text)


def examine_numbers(metrics_dir: Path, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """
    Tell what is wrong by the numbers that the nodes recorded: with workers, tasks and beat, and with the observing itself.
    """
    from celery_obs.areas.workers.collector import WorkersCollector  # noqa: PLC0415 -- help is quick.
    from celery_obs.exporter.health import Health  # noqa: PLC0415
    from celery_obs.exporter.samples import Samples  # noqa: PLC0415
    from celery_obs.exporter.scrape import InternalErrors  # noqa: PLC0415

    try:
        page = WorkersCollector(metrics_dir, errors=InternalErrors(), clock=clock).collect().text
    except ConfigurationError:
        return  # The directory has a line of its own.
    report = Health(watches_workers=True, watches_queues=False, clock=clock).report([page])
    for area in report.areas:
        for trouble in report.troubles:
            if trouble.condition.area == area:
                yield Finding("FAIL", area, f"{trouble.text} {trouble.advice}")
        if area != "sidecar" and report.status(area) == "healthy":
            yield Finding("OK", area, "all well, by the thresholds of the alerts.")
    samples = Samples([page])
    yield from _observing(samples)
    yield from _publishers(samples)


def _observing(samples: Any) -> Iterator[Finding]:
    """
    Tell what went wrong with the observing itself, since the metric files were made.
    """
    from celery_obs.areas.sidecar.metrics import DROPPED, INTERNAL_ERRORS, LABELS_FOLDED  # noqa: PLC0415

    for name, metric, well, advice in (
        (
            "internal errors",
            INTERNAL_ERRORS,
            "none.",
            "Your tasks are not affected. They are in the log of the process (logger celery_obs); please report them.",
        ),
        ("dropped", DROPPED, "nothing was dropped.", "The runbook of CeleryObsDropping says what to do about each reason."),
        (
            "folded labels",
            LABELS_FOLDED,
            "none.",
            "They have more label values than label_limit, and the rest is counted as _other: raise label_limit, or use fewer values.",
        ),
    ):
        counts = {what: count for (what,), count in samples.of(metric).items() if count}
        if counts:
            yield Finding("FAIL", name, f"{_listed(counts)} since the metric files were made. {advice}")
        else:
            yield Finding("OK", name, well)


def _publishers(samples: Any) -> Iterator[Finding]:
    """
    Find tasks that workers run and that no observed process publishes: their messages have no stamp of ours.
    """
    from celery_obs.areas.tasks.metrics import PUBLISHED, QUEUE_WAIT, STARTED  # noqa: PLC0415

    started = _by_task(samples.of(STARTED))
    published, waited = _by_task(samples.of(PUBLISHED)), _by_task(samples.count_of(QUEUE_WAIT))
    unseen = sorted(task for task, count in started.items() if count and not published.get(task) and not waited.get(task))
    if not any(started.values()):
        return
    if not unseen:
        yield Finding("OK", "publishers", "those of all tasks are observed.")
        return
    names = _first_of(unseen)
    advice = (
        "Waiting times, published counts and correlation ids are missing. "
        "Call celery_obs.setup(app) where the publishing program, such as the web application, makes its Celery app."
    )
    yield Finding("FAIL", "publishers", f"no observed process publishes {names}. {advice}")


def _by_task(counts: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (task, *_), count in counts.items():
        found[task] = found.get(task, 0.0) + count
    return found


def _listed(counts: Mapping[str, float]) -> str:
    return _first_of([f"{count:.0f} in {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])])


def _first_of(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _extras(installed: Callable[[str], bool]) -> Iterator[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if not installed(module)]
        if missing:
            text = f"not installed ({', '.join(missing)}). To have it: pip install 'celery_obs[{extra}]'"
            yield Finding("--", f"extra {extra}", text)
        else:
            yield Finding("OK", f"extra {extra}", "installed.")


class Node(NamedTuple):
    """
    A node that runs.

    Attributes:
        heartbeat: Its last; None for publishers, which have none.

        about: What it said of itself at its start; None where it said nothing.
    """

    name: str
    heartbeat: Heartbeat | None
    about: Mapping[str, Any] | None


def running_nodes(metrics_dir: Path, *, clock: Callable[[], float] = time.time) -> list[Node]:
    """
    Find the nodes that run, and what each said of itself.
    """
    try:
        beats = heartbeats(str(metrics_dir))
    except Unreadable:
        beats = []
    fresh = [beat for beat in beats if clock() - beat.touched_at <= _STALE]
    found = [Node(beat.node, beat, read_about(metrics_dir / f"{beat.node}.v{VERSION}")) for beat in fresh]
    return found + [Node(name, None, read_about(metrics_dir / folder_name(name))) for name in _publishing_nodes(metrics_dir)]


def _publishing_nodes(metrics_dir: Path) -> Iterator[str]:
    """
    Go through the nodes of publishers of which one lives.
    """
    from celery_obs.exceptions import LayoutError  # noqa: PLC0415
    from celery_obs.recorder.reader import NodeReader  # noqa: PLC0415

    try:
        os.close(open_metrics_dir(metrics_dir))
        folders = sorted(metrics_dir.iterdir())
    except OSError:
        return
    for folder in folders:
        name = node_name(folder.name)
        about = read_about(folder) if name is not None else None
        if name is None or about is None or about.get("role") != "publisher":
            continue
        try:
            reader = NodeReader(folder)
        except (OSError, LayoutError):
            continue
        try:
            is_live = bool(reader.read().files.live)
        except (OSError, LayoutError, ValueError, ArithmeticError):
            continue  # The checks of the numbers tell of it.
        finally:
            reader.close()
        if is_live:
            yield name


def examine_switches(
    nodes: Iterable[Node],
    settings: Settings,
    environ: Mapping[str, str],
    *,
    installed: Callable[[str], bool],
    unreachable: Callable[[str], str],
    others_logging: str = "",
) -> Iterator[Finding]:
    """
    Tell of attempts, metrics, logs, traces and errors what the running nodes announced; where none did, what follows from this shell's environment.
    """
    announced = [(node, each) for node in nodes if node.about is not None for each in _announced_switches(node.about)]
    if not announced:
        view = "by this shell's environment, because no running node has announced anything"
        for each in switches(settings, environ, installed=installed, unreachable=unreachable, others_logging=others_logging):
            yield each._replace(text=f"{each.text} ({view})")
        return
    nodes_by_finding: dict[Finding, list[str]] = {}
    for node, each in announced:
        nodes_by_finding.setdefault(each, []).append(node.name)
    problems = {where: unreachable(where) for where in {each.where for each in nodes_by_finding if each.where}}
    for each, names in nodes_by_finding.items():
        who = _first_of(names)
        problem = problems.get(each.where, "")
        text = f"{each.text} (as {who} announced)"
        if problem and each.verdict == "OK":
            yield each._replace(verdict="FAIL", text=f"{text} It does not answer from here: {problem}. Is it running?", node=who)
        else:
            yield each._replace(text=text, node=who)


def _announced_switches(about: Mapping[str, Any]) -> Iterator[Finding]:
    attempts = about.get("attempts")
    heard = _HEARD.get(str(attempts.get("heard_by"))) if isinstance(attempts, dict) else None
    if heard is not None and isinstance(attempts, dict):
        because = attempts.get("because")
        yield Finding("OK", "attempts", f"{heard}, because {because}." if because else f"{heard}.")
    listed = about.get("switches")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("verdict") in _STATUS:
            yield Finding(each["verdict"], str(each.get("name", "")), str(each.get("text", "")), str(each.get("where", "")))


def _broker_of(app: Any, url: str | None) -> tuple[Broker | None, str]:
    """
    Return the broker that was given or that *app* uses, and what is wrong with its configuration.
    """
    try:
        return (of_url(url) if url else of_app(app) if app is not None else None), ""
    except ConfigurationError as error:
        return None, str(error)


@click.command()
@metrics_dir_option
@click.option("--redis-url", envvar="CELERY_OBS_REDIS_URL", help="Redis of the cluster's state.  [default: the app's, or the broker]")
@click.option("--broker-url", envvar="CELERY_OBS_BROKER_URL", help="The broker.  [default: the app's]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: status, checks, and what the running nodes announced.")
@click.pass_context
def doctor(ctx: click.Context, metrics_dir: str | None, redis_url: str | None, broker_url: str | None, *, as_json: bool) -> None:
    """
    Check the environment, and change nothing: one line per check, OK or what to do.

    As "celery -A proj obs doctor" it takes the URLs from the app.
    Exit code 0 if nothing failed, else 1.
    """
    from celery_obs.telemetry.logs.configure import other_receivers  # noqa: PLC0415 -- loads structlog.

    app = getattr(ctx.obj, "app", None)
    given = {"metrics_dir": metrics_dir, "redis_url": redis_url}
    settings = load(app.conf if app is not None else {}, os.environ, {name: value for name, value in given.items() if value})
    broker, wrong = _broker_of(app, broker_url)
    redis: str | Broker | None = settings.redis_url or (broker if broker is not None and broker.is_redis else None)
    others = ", ".join(other_receivers()) if app is not None else ""
    nodes = running_nodes(settings.metrics_dir)
    findings = [
        *examine(Surroundings(settings.metrics_dir, redis, broker, wrong)),
        *examine_switches(nodes, settings, os.environ, installed=is_installed, unreachable=reaches, others_logging=others),
    ]
    has_failed = any(finding.verdict == "FAIL" for finding in findings)
    if as_json:
        print_json(_document(findings, nodes, status="fail" if has_failed else "ok"))
    else:
        for finding in findings:
            click.echo(f"{finding.verdict:<4} {finding.name}: {finding.text}")
    ctx.exit(1 if has_failed else 0)


def _document(findings: Iterable[Finding], nodes: Iterable[Node], *, status: str) -> dict[str, object]:
    return {
        "status": status,
        "checks": [
            {"name": each.name, "status": _STATUS[each.verdict], "text": each.text, "where": each.where or None, "node": each.node or None}
            for each in findings
        ],
        "nodes": [
            {
                "node": node.name,
                "role": node.heartbeat.role if node.heartbeat is not None else "publisher",
                "ready": node.heartbeat.ready if node.heartbeat is not None else None,
                "last_heartbeat": node.heartbeat.touched_at if node.heartbeat is not None else None,
                "announced": node.about,
            }
            for node in nodes
        ],
    }
