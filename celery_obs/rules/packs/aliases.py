"""
Aliases: our series under the names of others, so that their dashboards and alerts go on working.

Recording rules in a folder of their own, one file each, off until you load it.  A counter goes on as a counter, and a query that reads it
takes its rate as before.

Where another system has a name of ours for series with other labels, such as celery-exporter's ``celery_task_received_total``, there is no alias:
both together under one name would be added up twice.  There the series that we have gets its labels in addition, when it is scraped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from celery_obs.areas.catalogue import CATALOGUE
from celery_obs.areas.queues import metrics as queues
from celery_obs.areas.tasks import metrics as tasks
from celery_obs.areas.workers import metrics as workers
from celery_obs.exceptions import ConfigurationError
from celery_obs.rules.links import Links
from celery_obs.rules.promql import gauge, indented
from celery_obs.rules.render import Output, marked
from celery_obs.rules.rules import Group, RecordingRule, rule_file
from celery_obs.rules.yaml_text import Tree, to_yaml
from celery_obs.vocabulary.spec import Metric, valid_label, valid_name


__all__ = ["ABSENT", "ALIASES", "RELABELLED", "Alias", "Derived", "Relabelled", "build", "groups"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """
    One series under the name of another system.

    Attributes:
        name: Its name there, without ``_bucket`` and the like for a histogram.

        metric: Ours.

        labels: Our labels, each with its name there; what differs in others alone is added up.

        where: What our labels have to be.

        values: By the name of a label there, our values and what they are called there.

        host: The label there that says on which host it happened; empty for none.
    """

    name: str
    metric: Metric
    host: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        Refuse what would record nothing.
        """
        for label in (*self.labels, *self.where):
            if label not in self.metric.labels:
                self._refuse(
                    f"reads the label {label}, which {self.metric.name} does not have. It has {', '.join(self.metric.labels) or 'none'}."
                )
        if not valid_name(self.name) or not all(map(valid_label, self.labels.values())):
            self._refuse("has a name or a label that Prometheus does not accept.")

    def _refuse(self, problem: str) -> None:
        message = f"The alias {self.name} {problem}"
        raise ConfigurationError(message)

    def records(self) -> Iterator[RecordingRule]:
        """
        Write the recording rules.

        Each target keeps its own series.  A sum over all of them would fall when a target goes, and a query that takes its rate
        would see a restart, and count all that the others ever counted a second time.
        """
        for suffix in ("_bucket", "_count", "_sum") if self.metric.kind == "histogram" else ("",):
            kept = {**self.labels, "le": "le"} if suffix == "_bucket" else dict(self.labels)
            expr = f"{self.metric.name}{suffix}{self._matchers()}"
            # A label whose values change, and not its name, takes another name for a while: two values may become one, and only
            # the sum over the old label makes one series of them.
            detours = {label: f"alias_{label}" if label == new and new in self.values else new for label, new in kept.items()}
            for label, new in detours.items():
                if label != new:
                    expr = _replaced(expr, new, "$1", label, "(.*)")
                for old, value in self.values.get(kept[label], {}).items():
                    expr = _replaced(expr, new, value, label, old)
            gone = [label for label in self.metric.labels if label not in detours.values()]
            expr = _without(expr, gone)
            for label, new in detours.items():
                if new != kept[label]:
                    expr = _without(_replaced(expr, kept[label], "$1", new, "(.*)"), [new])
            by = tuple(kept.values())
            if self.host:
                expr, by = _replaced(expr, self.host, "$1", "instance", _HOST), (*by, self.host)
            yield RecordingRule(name=self.name + suffix, help=self.metric.help, expr=expr, by=by)

    def _matchers(self) -> str:
        inside = ", ".join(f'{label}="{value}"' for label, value in self.where.items())
        return f"{{{inside}}}" if inside else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """
    One series of another system that is worked out from ours, and is none of them.

    Attributes:
        name: Its name there.

        help: The question that it answers.

        expr: PromQL.

        by: The labels of its result.

        labels: Labels that it adds.
    """

    name: str
    help: str
    expr: str
    by: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)

    def records(self) -> Iterator[RecordingRule]:
        """
        Write the recording rule.
        """
        yield RecordingRule(name=self.name, help=self.help, expr=self.expr, by=self.by, labels=self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relabelled:
    """
    A series that has the same name there: it gets the labels that it has there, beside its own, when it is scraped.

    Attributes:
        metric: Ours, and theirs.

        labels: Our labels, or those of the target, each with its name there.
    """

    metric: Metric
    labels: Mapping[str, str]

    def configs(self) -> Iterator[Mapping[str, Tree]]:
        """
        Write what Prometheus does to each sample.
        """
        for label, new in self.labels.items():
            value = _HOST if label == "instance" else "(.+)"
            yield {"source_labels": ["__name__", label], "regex": f"{self.metric.name};{value}", "target_label": new, "replacement": "$1"}


_HOST: Final = "(.+?)(?::[0-9]+)?"
"""
The host in an address, without its port.
"""


def _replaced(expr: str, label: str, value: str, source: str, pattern: str) -> str:
    return f'label_replace(\n  {indented(expr)},\n  "{label}", "{value}", "{source}", "{pattern}"\n)'


def _without(expr: str, labels: Sequence[str]) -> str:
    return f"sum without ({', '.join(labels)}) (\n  {indented(expr)}\n)" if labels else expr


_HOSTNAME: Final = "hostname"
_TASK: Final = {"task": "name", "queue": "queue_name"}
_CHANNEL: Final = {"channel_type": "platform"}
_PROVIDER: Final = {"channel_type": "provider"}
_ERROR_NAMES: Final = {
    "error_type": {
        "auth": "auth_error",
        "rate_limit": "rate_limit_error",
        "network": "network_error",
        "timeout": "network_error",
        "validation": "validation_error",
        "server_error": "api_error",
    }
}


def _of(*, metric: str, **more: Any) -> Iterator[Alias]:
    """
    Make an alias of a metric by its name; none where its area is not there.
    """
    if metric in CATALOGUE:
        yield Alias(metric=CATALOGUE[metric], **more)


def _one_for_each_state(name: str, label: str) -> Iterator[Derived]:
    """
    Write a breaker's state as one series for each state, of which one is 1.
    """
    state_of = CATALOGUE.get("channel_circuit_breaker_state")
    if state_of is None:
        return
    for value, state in enumerate(("closed", "open", "half_open")):
        yield Derived(
            name=name,
            help=state_of.help,
            expr=_without(_replaced(f"{gauge(state_of)} == bool {value}", label, "$1", "channel_type", "(.*)"), ["channel_type"]),
            by=(label,),
            labels={"state": state},
        )


def _of_consumers(name: str, question: str, each: str) -> Derived:
    """
    Add *each* up over the workers of a target, for each queue whose tasks they can run.

    A target whose workers listen to different queues counts for all of these: which of them listens to which is nowhere to be seen.
    """
    # With and without the labels that are there beside ours.
    listens = f"count without (task, name, queue_name, hostname) ({tasks.RECEIVED.name}) > bool 0"
    expr = f"({listens})\n* on (job, instance) group_left ()\nsum by (job, instance) ({each})"
    return Derived(
        name=name, help=question, expr=_without(_replaced(expr, "queue_name", "$1", "queue", "(.*)"), ["queue"]), by=("queue_name",)
    )


_ITS_WORKER: Final = f"({workers.UP.name} >= bool 0) and on (job, instance) (count by (job, instance) ({workers.UP.name}) == 1)"
"""
The name of the one worker of a target, always 1; nothing for a target with several workers or none.
"""


def _with_worker(expr: str) -> str:
    """
    Add the label worker to a series of a target that has one worker.  Of another it is not known, so the series stays without: its totals are right.
    """
    return (
        f"(\n  {indented(expr)}\n)\n* on (job, instance) group_left (worker) (\n  {_ITS_WORKER}\n)\n"
        f"or\n(\n  {indented(expr)}\n)\nunless on (job, instance) (\n  {_ITS_WORKER}\n)"
    )


RELABELLED: Final[Mapping[str, tuple[Relabelled, ...]]] = {
    "celery-exporter": (
        *(Relabelled(metric=metric, labels={**_TASK, "instance": _HOSTNAME}) for metric in (tasks.RECEIVED, tasks.STARTED)),
        Relabelled(metric=workers.UP, labels={"worker": _HOSTNAME}),
    )
}
"""
What has one name there and here, by system.
"""


_FLOWER_EVENTS: Final[Mapping[str, tuple[Metric, str]]] = {
    # Who published is no worker.
    "task-sent": (tasks.PUBLISHED, ""),
    "task-received": (tasks.RECEIVED, ""),
    "task-started": (tasks.STARTED, ""),
    "task-succeeded": (tasks.FINISHED, '{state="success"}'),
    "task-failed": (tasks.FINISHED, '{state=~"failure|timeout|lost"}'),
    "task-retried": (tasks.FINISHED, '{state="retry"}'),
    "task-revoked": (tasks.FINISHED, '{state=~"revoked|terminated"}'),
    "task-rejected": (tasks.FINISHED, '{state="rejected"}'),
}
"""
What Flower counts by the type of an event, as we count it: of which metric, and with which labels.
"""


def _flower_events() -> Iterator[Derived]:
    for event, (metric, matchers) in _FLOWER_EVENTS.items():
        expr = f"sum without ({', '.join(_all_but_task(metric))}) (\n  {metric.name}{matchers}\n)"
        yield Derived(
            name="flower_events_total",
            help="How often did what happen to which task on which worker?",
            expr=expr if event == "task-sent" else _with_worker(expr),
            by=("task",),  # The worker is there where it is known.
            labels={"type": event},
        )


def _all_but_task(metric: Metric) -> Iterator[str]:
    """
    Go through the labels of *metric* besides its task: its own, and those of other systems that it may have got when it was scraped.
    """
    yield from (label for label in metric.labels if label != "task")
    for relabelled in RELABELLED.values():
        for each in relabelled:
            if each.metric is metric:
                yield from each.labels.values()


def _flower_runtimes() -> Iterator[Derived]:
    for suffix in ("_bucket", "_count", "_sum"):
        yield Derived(
            name=f"flower_task_runtime_seconds{suffix}",
            help="How long does a task take that succeeds?",
            expr=_with_worker(f'sum without (queue, state) (\n  {tasks.RUNTIME.name}{suffix}{{state="success"}}\n)'),
            by=("task", *(("le",) if suffix == "_bucket" else ())),
        )


ABSENT: Final[Mapping[str, Mapping[str, str]]] = {
    "flower": {
        "flower_task_prefetch_time_seconds": (
            "it is the last task's time between receipt and start, which we do not measure; "
            "`celery_task_queue_wait_seconds` is a histogram of the time from publish (or ETA) to start"
        ),
        "`task` on `flower_worker_prefetched_tasks`": "we know how many messages a worker holds, not of which tasks",
        "`worker` on `flower_events_total` and `flower_task_runtime_seconds` where one exporter serves several workers": (
            "the files of a directory are added up; the series are there without the label. Run one exporter beside each worker to have it"
        ),
        '`worker` on `flower_events_total{type="task-sent"}`': "a task is sent by a program, not by a worker",
    },
    "celery-exporter": {
        "`hostname` where one exporter serves several workers": "it is the exporter's host, for the files of a directory are added up",
    },
}
"""
What another system has and we cannot tell, with the reason: there is no series for it, rather than one of zeros.
"""

_TOOLS: Final[Mapping[str, str]] = {"flower": "Flower", "celery-exporter": "celery-exporter"}

_REJECT: Final = (
    "A task that raises `Reject` is `rejected` here; Celery sends the event `task-failed` of it (since 5.7, without `requeue`), "
    "so both tools count a failure."
)
_DIFFERENT: Final[Mapping[str, tuple[str, ...]]] = {
    "flower": (
        _REJECT,
        "`task-failed` counts each attempt that failed, ran into its hard time limit or was lost once; of a time limit Celery sends two events.",
        "`task-revoked` counts tasks that were revoked, expired or terminated.",
        "`task-sent` needs no `task_send_sent_event`, and no setting has to switch events on.",
        "`flower_task_runtime_seconds` has our buckets: set `runtime_buckets` for others.",
        "`flower_worker_prefetched_tasks` includes messages that wait for their ETA.",
    ),
    "celery-exporter": (
        _REJECT,
        "`hostname` of a task is the host of the exporter; that of a worker is its whole node name.",
        "`celery_task_runtime` knows every outcome, not only success.",
    ),
}

ALIASES: Final[Mapping[str, tuple[Alias | Derived, ...]]] = {
    "business-hub": (
        *_of(
            name="sync_operations_total",
            metric="channel_sync_total",
            labels={"channel_type": "source", "sync_type": "target", "status": "status"},
            values={"status": {"failure": "error"}},
        ),
        *_of(
            name="sync_duration_seconds", metric="channel_sync_duration_seconds", labels={"channel_type": "source", "sync_type": "target"}
        ),
        *_of(name="active_syncs", metric="channel_sync_in_progress", labels={"channel_type": "source"}),
    ),
    "pms": (
        *_of(name="pms_sync_latency_seconds", metric="channel_sync_duration_seconds", labels=_CHANNEL),
        *_of(name="pms_sync_errors_total", metric="channel_api_errors_total", labels={**_CHANNEL, "error_type": "error_type"}),
        *_of(
            name="pms_channel_api_requests_total",
            metric="channel_api_requests_total",
            labels={**_CHANNEL, "endpoint": "endpoint", "status_code": "status_code"},
        ),
        Alias(name="pms_celery_queue_depth", metric=queues.DEPTH, labels={"queue": "queue_name"}),
        *_of(name="pms_circuit_breaker_state", metric="channel_circuit_breaker_state", labels=_CHANNEL),
        *_of(name="pms_double_booking_detected_total", metric="channel_double_bookings_detected_total"),
    ),
    "health-exchange": (
        *_of(
            name="ohe_sync_operations_total",
            metric="channel_sync_total",
            labels={**_PROVIDER, "sync_type": "type", "status": "status"},
        ),
        *_of(name="ohe_sync_duration_seconds", metric="channel_sync_duration_seconds", labels={**_PROVIDER, "sync_type": "type"}),
        *_of(name="ohe_data_points_processed_total", metric="channel_sync_records_total", labels={**_PROVIDER, "sync_type": "type"}),
        *_of(
            name="ohe_provider_api_errors_total",
            metric="channel_api_errors_total",
            labels={**_PROVIDER, "error_type": "error_type"},
            values=_ERROR_NAMES,
        ),
        *_of(
            name="ohe_provider_api_rate_limits_total",
            metric="channel_api_errors_total",
            labels=_PROVIDER,
            where={"error_type": "rate_limit"},
        ),
        *_of(name="ohe_webhook_requests_total", metric="channel_webhook_received_total", labels=_PROVIDER),
        *_of(name="ohe_webhook_processing_time_seconds", metric="channel_webhook_processing_seconds", labels=_PROVIDER),
        Alias(name="ohe_huey_queue_size", metric=queues.DEPTH, labels={"queue": "queue"}),
        *_of(
            name="ohe_circuit_breaker_transitions_total",
            metric="channel_circuit_breaker_transitions_total",
            labels={"channel_type": "breaker", "from_state": "from", "to_state": "to"},
        ),
        *_one_for_each_state("ohe_circuit_breaker_state", "breaker"),
        *_of(
            name="ohe_circuit_breaker_open_duration_seconds",
            metric="channel_circuit_breaker_open_duration_seconds",
            labels={"channel_type": "breaker"},
        ),
    ),
    "publishing": (Alias(name="publishing_queue_depth", metric=queues.DEPTH, labels={"queue": "queue"}),),
    "celery-exporter": (
        Alias(name="celery_task_sent_total", metric=tasks.PUBLISHED, labels=_TASK, host=_HOSTNAME),
        Alias(name="celery_task_succeeded_total", metric=tasks.FINISHED, labels=_TASK, host=_HOSTNAME, where={"state": "success"}),
        Alias(name="celery_task_failed_total", metric=tasks.FAILURES, labels={**_TASK, "exception": "exception"}, host=_HOSTNAME),
        Alias(name="celery_task_retried_total", metric=tasks.RETRIES, labels=_TASK, host=_HOSTNAME),
        Alias(name="celery_task_revoked_total", metric=tasks.FINISHED, labels=_TASK, host=_HOSTNAME, where={"state": "revoked"}),
        Alias(name="celery_task_rejected_total", metric=tasks.FINISHED, labels=_TASK, host=_HOSTNAME, where={"state": "rejected"}),
        Alias(name="celery_task_runtime", metric=tasks.RUNTIME, labels=_TASK, host=_HOSTNAME),
        Alias(name="celery_task_queue_wait_time", metric=tasks.QUEUE_WAIT, labels=_TASK, host=_HOSTNAME),
        Alias(name="celery_queue_length", metric=queues.DEPTH, labels={"queue": "queue_name"}),
        Alias(name="celery_active_consumer_count", metric=queues.CONSUMERS, labels={"queue": "queue_name"}),
        Alias(name="celery_worker_tasks_active", metric=workers.POOL_BUSY, labels={"worker": _HOSTNAME}),
        _of_consumers("celery_active_worker_count", "How many workers take from the queue?", gauge(workers.UP)),
        _of_consumers(
            "celery_active_process_count",
            "How many processes take from the queue?",
            f"{gauge(workers.POOL_SIZE)} and on (job, instance, worker) {gauge(workers.UP)} == 1",
        ),
    ),
    "flower": (
        Alias(name="flower_worker_online", metric=workers.UP, labels={"worker": "worker"}),
        Alias(name="flower_worker_number_of_currently_executing_tasks", metric=workers.POOL_BUSY, labels={"worker": "worker"}),
        Alias(name="flower_worker_prefetched_tasks", metric=workers.RESERVED, labels={"worker": "worker"}),
        *_flower_events(),
        *_flower_runtimes(),
    ),
}
"""
By the system whose names they are.
"""


def groups() -> Iterator[Group]:
    """
    Make one group of aliases a system.
    """
    for system, aliases in ALIASES.items():
        rules = tuple(record for alias in aliases for record in alias.records())
        if rules:
            yield Group(
                name=f"celery_obs_aliases_{system.replace('-', '_')}", comment=f"our series under the names of {system}.", rules=rules
            )


def _page() -> Iterator[str]:
    """
    Write the lines of the page for those who come from another tool.
    """
    yield "# Coming from Flower or celery-exporter"
    yield ""
    yield "Load the file of aliases of the tool that you come from, and its dashboards and alerts ask our series, under its names."
    yield "How to load it: [keep the names of another system](../how-to/load-rules-and-alerts.md#keep-the-names-of-another-system)."
    yield "What cannot be told is absent: a panel shows no data rather than a zero, unless its own query makes one."
    for system, absent in ABSENT.items():
        yield from ("", f"## {_TOOLS[system]}", "", f"`deploy/prometheus/aliases/aliases-{system}.yml` has:", "")
        names = dict.fromkeys(record.name for alias in ALIASES[system] for record in alias.records())
        yield from (f"- `{name}`" for name in names)
        yield from ("", "Absent, and why:", "")
        yield from (f"- {name}: {reason}." if name.startswith("`") else f"- `{name}`: {reason}." for name, reason in absent.items())
        yield from ("", "Different:", "")
        yield from (f"- {difference}" for difference in _DIFFERENT[system])


def build(links: Links) -> Iterator[Output]:
    """
    Write one file of aliases a system, and one of labels where a name is the same.
    """
    for system, group in zip((system for system, aliases in ALIASES.items() if aliases), groups(), strict=True):
        yield Output(f"deploy/prometheus/aliases/aliases-{system}.yml", rule_file("celery_obs/rules/packs/aliases", [group], links))
    yield Output(
        "docs/reference/migration.md", marked("celery_obs/rules/packs/aliases", "\n".join(_page()) + "\n", comment="<!--", end=" -->")
    )
    for system, relabelled in RELABELLED.items():
        tree = {"metric_relabel_configs": [config for each in relabelled for config in each.configs()]}
        text = f"# The labels that {system} has on series of the same name: put these lines below the job that scrapes our exporters.\n"
        yield Output(f"deploy/prometheus/labels/labels-{system}.yml", marked("celery_obs/rules/packs/aliases", text + to_yaml(tree)))
