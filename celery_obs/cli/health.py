"""
``celery-obs health``: the daily health check, as a report.
"""

from __future__ import annotations

import base64
import http
import json
import re
import urllib.error
import urllib.parse
import urllib.request

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from celery_obs.exceptions import ConfigurationError
from celery_obs.telemetry.redaction import reason

from .operate import find_redis, json_option, print_json, redis_option, reports


__all__ = ["Finding", "examine", "examine_exporter", "health", "rate_from_page"]


_PATIENCE = 5.0
_LONGEST_ANSWER = 64 * 1024 * 1024
_MOST = 50_000
_MOST_SHOWN = 5
_QUERY = 'sum(rate(channel_sync_total{status="success"}[24h])) / sum(rate(channel_sync_total[24h])) * 100'
_EXIT = {"healthy": 0, "degraded": 1, "unhealthy": 1, "unknown": 2}
_AREAS = ("workers", "queues", "tasks", "beat", "sidecar")


class Finding(NamedTuple):
    """
    What a check found.

    Attributes:
        verdict: healthy, degraded, unhealthy or unknown.

        text: In words.

        facts: In numbers.
    """

    verdict: str
    name: str
    text: str
    facts: Any = None


def examine_exporter(ask: Callable[[], str]) -> Iterator[Finding]:
    """
    Tell how workers, queues, tasks and beat are, as an exporter sees them.

    Args:
        ask: Returns what the exporter says at ``/health``.
    """
    try:
        checks = json.loads(ask())["checks"]
        found = [(name, checks[name]) for name in _AREAS if name in checks]
        rest = [(name, str(check["error"])) for name, check in checks.items() if name not in _AREAS and check["status"] != "healthy"]
        findings = [Finding(str(check["status"]), name, _sentences(check), check.get("findings")) for name, check in found]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        advice = "Is it running, and is --exporter-url right?"
        problem = f"{type(error).__name__}: {reason(error)[:200]}"
        yield Finding("unknown", "exporter", f"cannot be asked about workers, queues and beat ({problem}). {advice}")
        return
    yield from findings
    for name, problem in rest:
        yield Finding("degraded", f"exporter {name}", f"{problem[:300]}.")
    if not found:
        advice = "Ask the exporter beside a worker: --exporter-url"
        yield Finding("unknown", "workers", f"this exporter watches neither workers nor queues. {advice}")


def _sentences(check: Mapping[str, Any]) -> str:
    found = check.get("findings") or []
    sentences = " ".join(f"{each['text']} {each['advice']}" for each in found[:_MOST_SHOWN])
    if len(found) > _MOST_SHOWN:
        sentences += f" {len(found) - _MOST_SHOWN} more; --json has them."
    return sentences or (f"{check['error']}." if check.get("error") else "all well.")


def examine(found: Any, rate: Callable[[], tuple[float | None, str]], *, least: float) -> Iterator[Finding]:
    """
    Make the checks about channels: none where there are no channels.

    Args:
        found: Answers about the cluster.

        rate: Returns the percentage of syncs that succeeded, None where there were none, and where it has it from.

        least: The percentage below which syncs are not well.
    """
    status = found.status(limit=_MOST)
    if not status["connections"] and not status["channels"]:
        return
    counts = Counter(each["status"] for each in status["connections"])
    shown = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
    yield Finding("degraded" if counts["error"] else "healthy", "connections", f"{shown}.", dict(counts))
    paused = [each["channel_type"] for each in status["channels"] if each["paused"]]
    yield Finding("healthy", "paused channels", f"{', '.join(paused) or 'none'}.", paused)
    broken = {each["channel_type"]: each["state"] for each in found.breakers() if each["state"] != "closed"}
    shown = ", ".join(f"{name} {state}" for name, state in broken.items()) or "all closed"
    yield Finding("degraded" if broken else "healthy", "circuit breakers", f"{shown}.", broken)
    yield _syncs(rate, least)
    pending = found.pending(limit=1)
    text = f"{pending['count']} connections differ, on {pending['days']} days."
    yield Finding("degraded" if pending["count"] else "healthy", "pending reconciliation", text, pending["count"])
    ends = found.expiring(limit=_MOST)
    expired = [each["connection_id"] for each in ends if each["expired"]]
    text = f"{len(expired)} expired, {len(ends) - len(expired)} more end within 7 days."
    yield Finding("degraded" if expired else "healthy", "tokens", text, {"expired": len(expired), "expiring": len(ends) - len(expired)})


def _syncs(rate: Callable[[], tuple[float | None, str]], least: float) -> Finding:
    name = "sync success"
    try:
        percent, source = rate()
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        advice = "Give --prometheus-url, or --exporter-url of an exporter that runs."
        return Finding("unknown", name, f"cannot be told ({type(error).__name__}: {reason(error)[:200]}). {advice}")
    if percent is None:
        return Finding("healthy", name, f"no syncs {source}.")
    return Finding("healthy" if percent >= least else "degraded", name, f"{percent:.2f} % {source}.", round(percent, 2))


def rate_from_prometheus(url: str) -> tuple[float | None, str]:
    """
    Ask Prometheus for the last day.
    """
    answer = json.loads(_get(f"{url.rstrip('/')}/api/v1/query", {"query": _QUERY}))
    result = answer["data"]["result"]
    percent = float(result[0]["value"][1]) if result else float("nan")
    # Without a sync, the query divides nothing by nothing.
    return (None if percent != percent else percent), "in the last 24 hours"  # noqa: PLR0124 -- NaN alone differs from itself.


def rate_from_page(text: str) -> tuple[float | None, str]:
    """
    Add up an exporter's page.
    """
    total = good = 0.0
    for labels, value in re.findall(r"^channel_sync_total\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\} (\S+)", text, re.MULTILINE):
        total += float(value)
        if 'status="success"' in labels:
            good += float(value)
    return (good / total * 100 if total else None), "since the metric files of this exporter were made"


def _get(url: str, query: Mapping[str, str] | None = None, *, refused_too: bool = False) -> str:
    """
    Return what stands at *url*; with *refused_too*, also what comes with 503.
    """
    place = urllib.parse.urlsplit(url)
    if place.scheme not in {"http", "https"}:
        message = f"{place.scheme or 'no'} is no scheme of a page; expected http or https"
        raise ValueError(message)
    host = place.netloc.rpartition("@")[2]
    wanted = urllib.parse.urlunsplit((place.scheme, host, place.path, urllib.parse.urlencode(query or {}), ""))
    request = urllib.request.Request(wanted)  # noqa: S310 -- the scheme is checked.
    if place.username is not None:
        login = f"{urllib.parse.unquote(place.username)}:{urllib.parse.unquote(place.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:  # noqa: S310 -- as above.
            content: bytes = answer.read(_LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        if not refused_too or error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        content = error.read(_LONGEST_ANSWER)
    return content.decode(errors="replace")


@click.command()
@redis_option
@click.option(
    "--prometheus-url", envvar="CELERY_OBS_PROMETHEUS_URL", help="Prometheus to ask for the day's syncs.  [default: the exporter]"
)
@click.option(
    "--exporter-url",
    envvar="CELERY_OBS_EXPORTER_URL",
    default="http://127.0.0.1:19540",
    show_default=True,
    help="Exporter to ask.",
)
@click.option(
    "--min-success", type=click.FloatRange(0, 100), default=95.0, show_default=True, help="Minimum percentage of successful syncs."
)
@json_option
@click.pass_context
def health(
    ctx: click.Context, redis_url: str | None, prometheus_url: str | None, exporter_url: str, min_success: float, *, as_json: bool
) -> None:
    """
    Show the health of workers, queues, hung tasks and beat, then of channels.

    The exporter is asked about the former, Redis about the latter, if there are any.
    Exit code 0 healthy, 1 degraded or unhealthy, 2 cannot tell.
    """
    exporter_url = exporter_url.rstrip("/")

    def rate() -> tuple[float | None, str]:
        return rate_from_prometheus(prometheus_url) if prometheus_url else rate_from_page(_get(f"{exporter_url}/metrics"))

    findings = list(examine_exporter(lambda: _get(f"{exporter_url}/health", refused_too=True)))
    findings += _channels(ctx, redis_url, rate, least=min_success)
    verdicts = {finding.verdict for finding in findings}
    status = next((word for word in ("unhealthy", "degraded", "unknown") if word in verdicts), "healthy")
    if as_json:
        checks = {each.name: {"status": each.verdict, "text": each.text, "value": each.facts} for each in findings}
        print_json({"status": status, "checks": checks})
    else:
        for each in findings:
            click.echo(f"{each.verdict:<9} {each.name}: {each.text}")
        click.echo(f"\nThe cluster is {status}." if status != "unknown" else "\nThe health of the cluster is unknown.")
    ctx.exit(_EXIT[status])


def _channels(
    ctx: click.Context, redis_url: str | None, rate: Callable[[], tuple[float | None, str]], *, least: float
) -> Sequence[Finding]:
    try:
        find_redis(ctx, redis_url)
    except ConfigurationError:
        return ()  # Without a Redis there can be no channels.
    try:
        with reports(ctx, redis_url) as found:
            return list(examine(found, rate, least=least))
    except ConfigurationError as error:
        return [Finding("unknown", "redis", str(error))]
