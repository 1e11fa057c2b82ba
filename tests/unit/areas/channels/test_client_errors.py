"""
Clients that celery_obs does not know: what a program or its settings say of their exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

import celery_obs

from celery_obs.areas.channels import classification, engine
from celery_obs.areas.channels.errors import classify, is_retryable, register_client_error, retry_after, status_of
from celery_obs.areas.channels.failures import CLIENTS, client_errors
from celery_obs.areas.channels.policies import PolicyError
from celery_obs.exceptions import ConfigurationError
from celery_obs.runtime.hub import Hub
from celery_obs.settings import load
from celery_obs.testing import RaisingErrors


class AcmeError(Exception):
    """
    What the client of a provider that we never heard of raises.
    """

    def __init__(self, **told: Any) -> None:
        super().__init__("no")
        vars(self).update(told)


class AcmeBusyError(AcmeError):
    """
    One of them.
    """


ACME = f"{__name__}.AcmeError"
ROW = {
    "status": "answer.code",
    "headers": "answer.fields",
    "code": "word",
    "codes": {"SLOW_DOWN": "rate_limit"},
    "retry_after": "wait()",
    "inside": "reasons",
}


@pytest.fixture(params=["registered", "set"])
def _known(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """
    Both ways to say it.
    """
    if request.param == "registered":
        register_client_error(AcmeError, ROW)
        register_client_error(f"{__name__}.AcmeBusyError", "rate_limit")
        yield
        classification._ADDED.clear()
        return
    told = {"metrics_dir": str(tmp_path), "client_errors": {ACME: ROW, f"{__name__}.AcmeBusyError": "rate_limit"}}
    made = engine.Engine(hub=Hub(on_error=RaisingErrors()), settings=load({}, {}, told))
    engine.connect(lambda: made)
    yield
    engine.disconnect()


@pytest.mark.usefixtures("_known")
def test_what_a_program_says_of_its_client_holds() -> None:
    """
    Status, headers, words, seconds and what is wrapped are found where it says, and a row of a class wins over one of its base.
    """
    answered = AcmeError(answer=SimpleNamespace(code="503", fields={"Retry-After": "7"}))

    assert ("server_error", 503, 7.0) == (classify(answered), status_of(answered), retry_after(answered))
    assert ("rate_limit", True) == (classify(AcmeError(word="SLOW_DOWN")), is_retryable(AcmeError(word="SLOW_DOWN")))
    assert 30.0 == retry_after(AcmeError(word="SLOW_DOWN", wait=lambda: 30))
    assert "timeout" == classify(AcmeError(reasons=[ValueError(), TimeoutError()]))
    assert "rate_limit" == classify(AcmeBusyError())
    assert classify(AcmeError(word="NO_IDEA")) is None


def test_the_old_name_of_the_meaning_is_taken_with_a_warning() -> None:
    """
    A program that calls ``register_client_error(…, told=…)`` goes on working for a release.
    """
    with pytest.warns(DeprecationWarning, match="Write meaning instead"):
        register_client_error(AcmeBusyError, told="rate_limit")

    found = classify(AcmeBusyError())

    classification._ADDED.clear()
    assert "rate_limit" == found


def test_without_a_row_it_is_no_failure_of_a_channel() -> None:
    """
    As it was before.
    """
    assert (None, None) == (classify(AcmeBusyError()), classify(AcmeError(word="SLOW_DOWN")))


def test_the_face_of_the_package_has_it() -> None:
    """
    Where users look for it.
    """
    assert celery_obs.register_client_error is register_client_error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAVAILABLE", "network"),
        ("RESOURCE_EXHAUSTED", "rate_limit"),
        ("UNAUTHENTICATED", "auth"),
        ("NOT_FOUND", "validation"),
        ("DEADLINE_EXCEEDED", "timeout"),
        ("INTERNAL", "server_error"),
        ("NEW_WITH_THE_NEXT_VERSION", "server_error"),
    ],
)
def test_a_call_of_grpc_has_the_kind_of_its_code(code: str, kind: str) -> None:
    """
    Its exceptions derive from ``grpc.RpcError``, and tell an enumeration's member when they are asked.
    """
    base = type("RpcError", (Exception,), {"__module__": "grpc"})
    error = type("_InactiveRpcError", (base,), {"__module__": "grpc._channel", "code": lambda _: SimpleNamespace(name=code)})

    assert kind == classify(error())


def test_a_library_whose_attributes_raise_or_warn_breaks_nothing() -> None:
    """
    A property of a library's may do anything.
    """

    class Hostile(Exception):  # noqa: N818 -- a foreign name.
        @property
        def response(self) -> object:
            raise SystemError

        @property
        def status_code(self) -> int:
            import warnings

            warnings.warn("old", DeprecationWarning, stacklevel=2)
            return 503

        def __str__(self) -> str:
            raise SystemError

    assert classify(Hostile()) is None


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ("rate_limit", "client_errors"),
        ({"Busy": "rate_limit"}, "'Busy' in client_errors is not the name of a class"),
        ({5: "rate_limit"}, "5 in client_errors is not the name of a class"),
        ({"acme.Busy": "slow"}, "'slow'; expected one of: timeout"),
        ({"acme.Busy": 5}, "is 5"),
        ({"acme.Busy": {"kind": "slow"}}, "'acme.Busy: kind' is 'slow'"),
        ({"acme.Busy": {"state": "x"}}, "has 'state'; expected some of: kind, status"),
        ({"acme.Busy": {"status": "a b"}}, "'acme.Busy: status' is 'a b'; expected a path"),
        ({"acme.Busy": {"codes": ["x"]}}, "expected a dict from a code"),
        ({"acme.Busy": {"codes": {"x": "y"}}}, "expected one of: timeout"),
    ],
    ids=str,
)
def test_a_wrong_row_is_refused_with_its_place(told: Any, problem: str, tmp_path: Path) -> None:
    """
    At the start for a setting; where it is called for a program.
    """
    with pytest.raises(PolicyError, match=problem.replace("(", r"\(")):
        client_errors(told)
    with pytest.raises(ConfigurationError, match="client_errors"):
        load({}, {}, {"metrics_dir": str(tmp_path), "client_errors": told})


@given(st.sampled_from(CLIENTS))
def test_every_row_of_ours_is_one_that_a_user_could_have_written(row: Any) -> None:
    """
    The table is made of what the setting accepts, so that the documentation of one is that of the other.
    """
    told = {
        **({"kind": row.kind} if row.kind else {}),
        **{name: paths[0] for name in ("status", "headers", "code", "retry_after", "inside") if (paths := getattr(row, name))},
        "codes": dict(row.codes),
    }

    (read,) = client_errors({row.of: told})

    assert (row.of, row.kind, row.codes) == (read.of, read.kind, read.codes)
