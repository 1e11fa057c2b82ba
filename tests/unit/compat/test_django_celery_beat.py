"""
What we assume of django-celery-beat holds on the version that is installed.
"""

from __future__ import annotations

import ast

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from celery_obs.compat import django_celery_beat as compat


def test_the_scheduler_keeps_what_it_loaded_and_names_its_model() -> None:
    """
    Its source, which can be loaded only within a Django project, has the two names.
    """
    if find_spec("django_celery_beat") is None:
        pytest.skip("django-celery-beat is not installed")
    spec = find_spec("django_celery_beat")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("schedulers.py").read_text())
    kind = next(each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == "DatabaseScheduler")
    fields = {
        name.id: each.value for each in kind.body if isinstance(each, ast.Assign) for name in each.targets if isinstance(name, ast.Name)
    }
    assert ast.unparse(fields["_schedule"]) == "None"
    assert ast.unparse(fields["Model"]) == "PeriodicTask"
    assert "self._schedule = self.all_as_schedule()" in ast.unparse(kind)


def test_without_a_table_nothing_is_loaded() -> None:
    """
    A scheduler that has loaded nothing, or keeps it elsewhere, has no entries for us.
    """
    assert compat.loaded_entries(SimpleNamespace(_schedule=None)) == {}
    assert compat.loaded_entries(SimpleNamespace()) == {}


def test_rows_are_asked_of_the_models_manager() -> None:
    """
    Django gives every model the manager that is asked.
    """
    models = pytest.importorskip("django.db.models.options")
    assert hasattr(models.Options, "default_manager")
    manager = SimpleNamespace(filter=lambda **wanted: wanted)
    assert compat.enabled_rows(SimpleNamespace(Model=SimpleNamespace(_default_manager=manager))) == {"enabled": True}
