"""
How the API answers: in JSON, and with a refusal that says what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response


__all__ = ["Refusal", "answer", "refuse"]


class Refusal(Exception):  # noqa: N818 -- it is an answer.
    """
    What was asked for is not done.

    Args:
        status: The HTTP status.

        error: A word for programs.

        message: What was expected, what came, what to do.
    """

    def __init__(self, status: int, error: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def refuse(refusal: Refusal) -> Response:
    """
    Answer with a refusal.
    """
    return answer({"error": refusal.error, "message": str(refusal)}, refusal.status, refusal.headers)


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """
    Answer with *content* as JSON.
    """
    return JSONResponse(_whole(content), status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


def _whole(content: Any) -> Any:
    """
    Replace what UTF-8 cannot encode: half characters, which a client's JSON may hold.
    """
    if isinstance(content, str):
        return content if content.isascii() else content.encode("utf-8", "replace").decode()
    if isinstance(content, Mapping):
        return {_whole(key): _whole(value) for key, value in content.items()}
    return [_whole(each) for each in content] if isinstance(content, (list, tuple)) else content
