"""
The reference page of the settings.
"""

from __future__ import annotations

import re

from . import SETTINGS, Setting
from .kinds import REDIS_URL


__all__ = ["reference"]


_REFERENCE_HEAD = """\
<!-- Generated from celery_obs/settings; do not edit. -->
# Settings

A setting comes from one of four places, and the later wins:

1. the dict `celery_obs` in Celery's configuration: `app.conf.celery_obs = {"metrics_dir": "/run/celery_obs"}`;
2. a key `obs_…` in Celery's configuration: `app.conf.obs_metrics_dir = "/run/celery_obs"`, in Django's settings `CELERY_OBS_METRICS_DIR`;
3. the environment: `CELERY_OBS_METRICS_DIR=/run/celery_obs`; an empty variable counts as not set;
4. an argument: `celery_obs.setup(app, metrics_dir="/run/celery_obs")`.

A value of the wrong type, or an unknown setting in Celery's configuration or among the arguments, ends the start of worker, beat, exporter and commands
with a message that names the setting, the place and what was expected.
A process that only publishes is never stopped: it logs that message once and is not observed.
An environment variable that nothing of ours reads, such as `CELERY_OBS_LABEL_LIMTI`, is a warning that names the nearest one that is known.
Worker, beat, exporter and commands may share one environment: what is an option of one is left alone by the others.
"""


def reference() -> str:
    """
    Write the reference page of the settings, as Markdown.
    """
    return _REFERENCE_HEAD + "".join(_section(setting) for setting in SETTINGS)


def _section(setting: Setting) -> str:
    default = "worked out at start, see below" if setting.name == "metrics_dir" else f"`{setting.default!r}`"
    lines = [
        "",
        f"## `{setting.name}`",
        "",
        *re.sub(r"\. (?=[A-Z])", ".\n", setting.help).split("\n"),
        "",
        f"- expected: {setting.kind.expected}",
        f"- default: {default.removesuffix(', see below')}",
        f"- environment: `{setting.variable}`",
    ]
    if setting.secret:
        lines.append(f"- secret: {'its password is masked wherever it is shown' if setting.kind is REDIS_URL else 'it is never shown'}")
    return "\n".join(lines) + "\n"
