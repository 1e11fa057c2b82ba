"""
A web program that publishes tasks: one request, with the middleware that gives it an id, and that id in a header.

Called with the secret that the tasks are to keep.
"""

from __future__ import annotations

import sys

import logged  # type: ignore[import-not-found] # beside this file.

from asgi_correlation_id import CorrelationIdMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient


def serve(request: Request) -> JSONResponse:
    return JSONResponse(logged.publish_everything(request.query_params["secret"]))


app = Starlette(routes=[Route("/", serve)])
app.add_middleware(CorrelationIdMiddleware, header_name="X-Correlation-ID", validator=None)

if __name__ == "__main__":
    TestClient(app).get("/", params={"secret": sys.argv[2]}, headers={"X-Correlation-ID": sys.argv[1]}).raise_for_status()
