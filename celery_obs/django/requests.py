"""
Requests: what is published in one belongs to it.
"""

from __future__ import annotations

import uuid

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any, Final

from django.conf import settings
from django.utils.decorators import sync_and_async_middleware

from celery_obs.telemetry.correlation import in_request


__all__ = ["MIDDLEWARE", "correlation", "install"]


MIDDLEWARE: Final = "celery_obs.django.requests.correlation"

_HEADERS: Final = ("X-Correlation-ID", "X-Request-ID")


def install() -> None:
    """
    Put our middleware before the project's, unless it stands among them.

    Of Django's signals, those of a request do not do: with ASGI, what a receiver puts into the context does not reach the view.
    """
    if MIDDLEWARE not in settings.MIDDLEWARE:
        settings.MIDDLEWARE = [MIDDLEWARE, *settings.MIDDLEWARE]


def correlation(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """
    Make a middleware that takes the id which came with the request, or makes one.
    """
    if iscoroutinefunction(get_response):

        async def middleware(request: Any) -> Any:
            with in_request(_id_of(request)):
                return await get_response(request)

        return middleware

    def plain_middleware(request: Any) -> Any:
        with in_request(_id_of(request)):
            return get_response(request)

    return plain_middleware


correlation = sync_and_async_middleware(correlation)


def _id_of(request: Any) -> str:
    return next((found for name in _HEADERS if (found := request.headers.get(name))), "") or uuid.uuid4().hex
