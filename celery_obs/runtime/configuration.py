"""
The settings of a process: read from an app when that is configured, and what is said, once a process, of those that do not count.
"""

from __future__ import annotations

import contextlib
import logging
import os

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from celery_obs.exceptions import CeleryObsError, ConfigurationError
from celery_obs.settings import Settings, environment, load
from celery_obs.state.connection import shared_by


__all__ = ["Configuration"]


log = logging.getLogger("celery_obs")


class Configuration:
    """
    Read settings.

    Args:
        overrides: The arguments of `setup`.

    Threads: safe under the GIL.  Forks: what the parent said, a child does not say again.
    """

    def __init__(self, overrides: Mapping[str, Any]) -> None:
        self.overrides = dict(overrides)
        self._cannot_share = ""
        self._warned_of_variables = False
        self._warned_of_settings = False

    def of(self, app: Any) -> Settings:
        """
        Return the settings that *app*, the environment and our overrides make.

        Raises:
            ConfigurationError: if a setting is wrong.
        """
        settings = load(app.conf, os.environ, self.overrides)
        if settings.redis_url is None:
            try:
                settings = replace(settings, broker_redis=shared_by(app))
            except CeleryObsError as exc:
                self._cannot_share = str(exc)
            except Exception as exc:  # noqa: BLE001 -- what is inferred never stops the app; its words may quote a password.
                self._cannot_share = f"{type(exc).__name__} while its configuration was read."
        return settings

    def tell_what_is_off(self) -> None:
        """
        Warn where the broker could have held the cluster's state, and cannot.
        """
        if self._cannot_share:
            log.warning(
                "The broker cannot hold the cluster's state, so cluster features are off: %s Set redis_url (CELERY_OBS_REDIS_URL) to have them.",
                self._cannot_share,
            )

    def tell_unknown_variables(self, *, is_in_pool: bool) -> None:
        """
        Warn of variables with our prefix that nothing reads, once a process, and not in each process of a pool.
        """
        found = {} if self._warned_of_variables or is_in_pool else environment.unknown(os.environ)
        self._warned_of_variables = True
        if found:
            log.warning("celery_obs: %s.", environment.advice(found))

    def tell_other_settings(self, app: Any, *, source: Any, settings: Settings) -> None:
        """
        Warn, once a process, of an *app* that is configured otherwise than *source*, whose *settings* are in force.
        """
        if source is None or source is app or self._warned_of_settings:
            return
        with contextlib.suppress(ConfigurationError):  # It is told where that app is the first.
            found, usual = load(app.conf, os.environ, self.overrides), load({}, os.environ, self.overrides)
            given = [each.name for each in fields(Settings) if getattr(found, each.name) != getattr(usual, each.name)]
            other = [name for name in given if getattr(found, name) != getattr(settings, name)]
            if other:
                self._warned_of_settings = True
                log.warning(
                    "celery_obs: a process has one set of settings, and here those of the app %r are in force. What the app %r says of %s is not used: "
                    "give both the same configuration, or use environment variables.",
                    str(source.main or source),
                    str(app.main or app),
                    ", ".join(other),
                )
