"""
Django's settings, as the Django app reads them.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from django.core.exceptions import ImproperlyConfigured

import celery_obs.django

from celery_obs.django import apps
from celery_obs.runtime.plugin import plugin


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        ({"CELERY_OBS": {"label_limit": "many"}}, "label_limit"),
        ({"CELERY_OBS_LABEL_LIMT": 7}, "Did you mean label_limit"),
        ({"CELERY_OBS": ["label_limit"]}, "Expected a dict"),
        ({"CELERY_OBS_APP": "nowhere.celery:app"}, "CELERY_OBS_APP is 'nowhere.celery:app', which cannot be found"),
        ({"CELERY_OBS_APP": "json:loads"}, "Expected a Celery app"),
    ],
)
def test_djangos_settings_are_checked_when_it_starts(configured: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Django's own error names the setting, what came, and what was expected.
    """
    monkeypatch.setattr(apps, "settings", SimpleNamespace(**configured))
    config = apps.CeleryObsConfig("celery_obs.django", celery_obs.django)

    with pytest.raises(ImproperlyConfigured, match=message):
        config.ready()

    assert plugin() is None
