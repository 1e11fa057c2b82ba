"""
The config-only entry: ``imports = ("celery_obs.autoload",)`` in Celery's configuration.

Importing this module sets up observation of the current app; it is the one module of ours whose import does something.
It reaches workers, their pool processes and beat.  Programs that only publish do not import ``imports``: call `celery_obs.setup` there.
"""

from __future__ import annotations

from celery import current_app

from celery_obs.compat.celery import object_of
from celery_obs.runtime.plugin import join


join(object_of(current_app))
