"""
API calls, as programs import them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_obs.areas.channels.api_calls import api
from celery_obs.areas.channels.api_calls.api import ApiCall, api_call, endpoint, hooked


if TYPE_CHECKING:
    from celery_obs.areas.channels.api_calls.over_aiohttp import AiohttpMiddleware
    from celery_obs.areas.channels.api_calls.over_httpx import AsyncHttpxTransport, HttpxTransport
    from celery_obs.areas.channels.api_calls.over_requests import RequestsAdapter


__all__ = ["AiohttpMiddleware", "ApiCall", "AsyncHttpxTransport", "HttpxTransport", "RequestsAdapter", "api_call", "endpoint", "hooked"]


def __getattr__(name: str) -> Any:
    """
    Load the hook of a client when it is asked for: none of the clients has to be installed.
    """
    return getattr(api, name)
