"""
The reference page of client errors: what each exception of each library means, from the rows that `classify` reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .failures import ANY_ERROR, CLIENTS, ClientError


__all__ = ["page", "pages"]


_HEAD: Final = """\
# Client errors

What `celery_obs.classify`, the circuit breaker and sync tasks make of an exception, whichever client raised it.
No client has to be installed for it.

An exception has the kind of the first that tells one:

1. the row of its class, or of the nearest class that it derives from; rows of `celery_obs.register_client_error` and of the setting [`client_errors`](settings.md) come first;
2. the word that the library keeps (*code*), then the HTTP status, then the *kind* of the row;
3. what the exception wraps (*inside*), where that tells one: then it comes before the row itself;
4. what it was raised from (`raise … from …`).

Of a group of exceptions the kind counts with which trying again helps least, and it is tried again only if that may help for all of them.

| status | kind | tried again | the breaker counts |
|---|---|---|---|
| 401, 403, 407 | `auth` | no | a success: the channel answers |
| 403 with `Retry-After`, or with nothing left of a limit | `rate_limit` | yes | nothing |
| 408 | `timeout` | yes | a failure |
| 420, 429 | `rate_limit` | yes | nothing |
| any other from 400 on, 402 among them | `validation` | no | a success: the channel answers |
| 500 and above | `server_error` | yes | a failure |

The headers of the answer tell when to ask again: `Retry-After`, and where nothing is left of a limit, its reset.
They are read in every form: seconds, the three dates of HTTP, ISO 8601, times since the epoch in seconds, milliseconds, microseconds or nanoseconds, durations such as `6m0s`; at most a day.

A path goes from the exception along attributes, keys and numbers of lists; a step with `()` is called.

## Libraries

| class | kind | status | headers | code | inside |
|---|---|---|---|---|---|
"""

_CODES: Final = """
## Codes

Words that say more than the status does.

| class | kind | codes |
|---|---|---|
"""


def pages() -> Iterator[tuple[str, str, str]]:
    """
    Return the page: where it belongs, what to change instead, and its text.
    """
    yield "docs/reference/client-errors.md", "celery_obs/areas/channels/failures.py", page()


def page() -> str:
    """
    Write the page, as Markdown.
    """
    return _HEAD + "".join(_row(row) for row in (*CLIENTS, ANY_ERROR)) + _CODES + "".join(line for row in CLIENTS for line in _codes(row))


def _row(row: ClientError) -> str:
    status = row.status or ((f"in the text: {row.text}".replace("|", r"\|"),) if row.text else ())
    of = "any other exception" if row is ANY_ERROR else f"`{row.of}`"
    cells = (of, row.kind or "", *(", ".join(f"`{path}`" for path in paths) for paths in (status, row.headers, row.code, row.inside)))
    return f"| {' | '.join(cells)} |\n"


def _codes(row: ClientError) -> Iterator[str]:
    for kind in sorted(set(row.codes.values())):
        words = ", ".join(f"`{word}`" for word, its in row.codes.items() if its == kind)
        yield f"| `{row.of}` | {kind} | {words} |\n"
