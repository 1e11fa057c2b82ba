"""
The Django app: web processes, workers, beat, management commands and tests, by one line in the settings.

::

    INSTALLED_APPS = [..., "celery_obs.django"]
    CELERY_OBS = {"label_limit": 100}  # Or CELERY_OBS_LABEL_LIMIT = 100.

The Celery app that is observed is the one that is current when Django is ready: where the project's package imports it, as Celery's guide has it.
Without one, each app is observed that becomes final later.  ``CELERY_OBS_APP = "proj.celery:app"`` names another.

Since 0.1.
"""

from __future__ import annotations

import logging
import sys

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from celery_obs.telemetry.redaction import without_secrets


__all__ = ["CeleryObsConfig"]


_DICT: Final = "CELERY_OBS"
_APP: Final = "CELERY_OBS_APP"

log = logging.getLogger("celery_obs")


class CeleryObsConfig(AppConfig):  # type: ignore[misc]  # Django has no types.
    """
    Sets up observation when Django is ready.
    """

    name = "celery_obs.django"
    label = "celery_obs"
    verbose_name = "Celery observability"

    def ready(self) -> None:
        """
        Observe the project's Celery app.

        Raises:
            ImproperlyConfigured: for a setting that is unknown or has a value of the wrong type, and for a ``CELERY_OBS_APP`` that is not an app.
        """
        configured = _settings()
        _check(configured)
        named = getattr(settings, _APP, None)
        app = None if named is None else _named_app(named)
        try:
            _observe(app, configured)
        except Exception as error:
            # The project works without us.
            log.exception("celery_obs: the project's Celery app is not observed.", exc_info=without_secrets(error))


def _settings() -> dict[str, Any]:
    """
    Return what the project's settings say, by the names of our settings.
    """
    inner = getattr(settings, _DICT, None) or {}
    if not isinstance(inner, Mapping):
        message = f"{_DICT} is a {type(inner).__name__}. Expected a dict of settings, such as {{'label_limit': 100}}."
        raise ImproperlyConfigured(message)
    keys = {name: getattr(settings, name) for name in dir(settings) if name.startswith(f"{_DICT}_") and name != _APP}
    return {**inner, **{name.removeprefix(f"{_DICT}_").lower(): value for name, value in keys.items()}}


def _check(configured: Mapping[str, Any]) -> None:
    from celery_obs.exceptions import ConfigurationError
    from celery_obs.settings import load

    try:
        load({"celery_obs": configured}, {}, {})
    except ConfigurationError as error:
        message = f"Django's settings for celery_obs are wrong. {error}"
        raise ImproperlyConfigured(message) from error


def _named_app(named: object) -> Any:
    """
    Return the Celery app that the project names: as ``package.module:name``, or itself.
    """
    from celery import Celery

    found = named
    if isinstance(named, str):
        module, colon, name = named.partition(":")
        try:
            found = getattr(import_module(module), name if colon else "app")
        except (ImportError, AttributeError, ValueError) as error:
            message = f"{_APP} is {named!r}, which cannot be found: {error}. Expected a place such as 'proj.celery:app'."
            raise ImproperlyConfigured(message) from error
    if not isinstance(found, Celery):
        message = f"{_APP} is {named!r}, which is a {type(found).__name__}. Expected a Celery app, or its place such as 'proj.celery:app'."
        raise ImproperlyConfigured(message)
    return found


def _observe(app: Any, configured: Mapping[str, Any]) -> None:
    from celery_obs.compat.celery import current_app_if_any, on_app_finalize

    from . import requests

    if sys.argv[1:2] == ["test"]:
        from celery_obs.recorder.metrics_dir import use_temporary_metrics_dir

        use_temporary_metrics_dir()
    requests.install()
    # The current app, but none that Celery would make up because there is none.
    current = app or current_app_if_any()
    if current is not None:
        _set_up(current, configured)
        return

    def finalized(sender: Any, **_: object) -> None:
        _set_up(sender, configured)

    on_app_finalize(lambda late: late.on_after_finalize.connect(finalized, weak=False, dispatch_uid="celery_obs.django"))


def _set_up(app: Any, configured: Mapping[str, Any]) -> None:
    from celery_obs.runtime.plugin import join

    # As defaults of the app's own configuration, so that it does not matter which of Django's settings the project hands to Celery.
    app.add_defaults(lambda: {"celery_obs": dict(configured)})
    join(app)
