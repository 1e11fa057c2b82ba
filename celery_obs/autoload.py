"""
The config-only entry: ``imports = ("celery_obs.autoload",)`` in Celery's configuration.

Importing this module sets up observation of the current app; it is the one module of ours whose import does something.
It reaches workers, their pool processes and beat.  Programs that only publish do not import ``imports``: call `celery_obs.setup` there.
"""

from __future__ import annotations

import os

from celery import current_app

from celery_obs.plugin import plugin, setup


_app = current_app._get_current_object()  # noqa: SLF001 -- the proxy's documented way to the object.
setup(_app)
_plugin = plugin()
if _plugin is not None and (_app.loader.worker_initialized or "FORKED_BY_MULTIPROCESSING" in os.environ):
    # A worker, beat or a spawned pool process imports its modules, and said so before there was anybody of ours to hear it.
    # In a spawned one, marked by Celery's variable, the app that is current may be another than the one that has a loader at work.
    _plugin.program_started(_app)
