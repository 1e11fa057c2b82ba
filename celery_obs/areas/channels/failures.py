"""
What the exceptions of client libraries mean, as data: where each keeps its status, its headers and its code.

No library is imported for it: a row names a class by its module and name, and where to look by a path such as ``response.status_code``.
"""

from __future__ import annotations

import re

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from .api_calls.metrics import ERROR_TYPES, ErrorType
from .policies import PolicyError


__all__ = ["ANY_ERROR", "CLIENTS", "ClientError", "client_error", "client_errors", "followed"]


_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class ClientError(NamedTuple):
    """
    One class of exceptions, with all that derive from it.

    A path goes from the exception along attributes, keys of mappings and numbers of lists: ``response.Error.Code``, ``args.0``.
    A step that ends with ``()`` is called.  Where several paths are given, the first that leads somewhere counts.

    Attributes:
        of: The class, as ``package.module.Name``; of the module, the beginning is enough: ``stripe.StripeError``.

        kind: What it means where nothing below tells more.

        status: Where the HTTP status is.

        headers: Where the headers of the answer are.

        code: Where the library keeps a word that says more than the status does.

        codes: What these words mean.

        retry_after: Where the seconds are after which to ask again.

        inside: Where the exceptions are that it wraps: one, or several.

        text: A pattern whose first group is the status in the exception's text, where it stands nowhere else.

        client: What the table of the documentation calls it.
    """

    of: str
    kind: ErrorType | None = None
    status: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    codes: Mapping[str, ErrorType] = _NONE
    retry_after: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    text: str = ""
    client: str = ""

    @property
    def module(self) -> str:
        """
        What the name of the class's module begins with.
        """
        return self.of.rpartition(".")[0]

    @property
    def name(self) -> str:
        """
        Name of the class.
        """
        return self.of.rpartition(".")[2]


# --- paths ------------------------------------------------------------------------------------------------------------------------


def followed(start: Any, paths: tuple[str, ...]) -> Iterator[Any]:
    """
    Go through what *paths* lead to; those that lead to nothing are left out.  Never raises what the attributes of others raise.
    """
    for path in paths:
        found = _followed(start, path)
        if found is not None:
            yield found


def _followed(found: Any, path: str) -> Any:
    try:
        for step in path.split("."):
            if found is None:
                return None
            found = _step(found, step)
    except Exception:  # noqa: BLE001 -- a property of a library's may do anything, also warn where warnings are errors.
        return None
    return found


def _step(found: Any, step: str) -> Any:
    if step.endswith("()"):
        return getattr(found, step[:-2])()
    if isinstance(found, Mapping):
        return found.get(step)
    if step.isdigit():
        return found[int(step)]
    return getattr(found, step, None)


# --- what we know ---------------------------------------------------------------------------------------------------------------

_OAUTH_CODES: Final[Mapping[str, ErrorType]] = {
    "invalid_client": "auth",
    "invalid_grant": "auth",
    "unauthorized_client": "auth",
    "access_denied": "auth",
    "temporarily_unavailable": "server_error",
    "server_error": "server_error",
}
_GOOGLE_CODES: Final[Mapping[str, ErrorType]] = {
    # 403 in Google's older APIs, where others say 429.
    "rateLimitExceeded": "rate_limit",
    "userRateLimitExceeded": "rate_limit",
    "quotaExceeded": "rate_limit",
    "dailyLimitExceeded": "rate_limit",
    "RATE_LIMIT_EXCEEDED": "rate_limit",
    "authError": "auth",
    "backendError": "server_error",
}
_AWS_CODES: Final[Mapping[str, ErrorType]] = {
    # Most come with 400, whatever they are about.
    **dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "LimitExceededException",
            "PriorRequestNotComplete",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "TransactionInProgressException",
            "EC2ThrottledException",
        ),
        "rate_limit",
    ),
    **dict.fromkeys(
        (
            "AccessDenied",
            "AccessDeniedException",
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "MissingAuthenticationToken",
            "OptInRequired",
            "SignatureDoesNotMatch",
            "UnauthorizedOperation",
            "UnrecognizedClientException",
        ),
        "auth",
    ),
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutException"), "timeout"),
    **dict.fromkeys(
        ("InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "ServiceUnavailableException"),
        "server_error",
    ),
}
_SLACK_CODES: Final[Mapping[str, ErrorType]] = {
    # Slack answers with 200 whatever happened.
    **dict.fromkeys(("ratelimited", "rate_limited"), "rate_limit"),
    **dict.fromkeys(
        (
            "access_denied",
            "account_inactive",
            "invalid_auth",
            "missing_scope",
            "no_permission",
            "not_allowed_token_type",
            "not_authed",
            "org_login_required",
            "team_access_not_granted",
            "token_expired",
            "token_revoked",
        ),
        "auth",
    ),
    **dict.fromkeys(("fatal_error", "internal_error", "service_unavailable"), "server_error"),
    "request_timeout": "timeout",
}
_GRPC_CODES: Final[Mapping[str, ErrorType]] = {
    "ABORTED": "server_error",
    "DATA_LOSS": "server_error",
    "DEADLINE_EXCEEDED": "timeout",
    "INTERNAL": "server_error",
    "PERMISSION_DENIED": "auth",
    "RESOURCE_EXHAUSTED": "rate_limit",
    "UNAUTHENTICATED": "auth",
    "UNAVAILABLE": "network",
    "UNKNOWN": "server_error",
    **dict.fromkeys(
        ("ALREADY_EXISTS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE", "UNIMPLEMENTED"),
        "validation",
    ),
}

CLIENTS: Final[tuple[ClientError, ...]] = (
    ClientError(
        "celery_obs.ChannelError",
        kind="server_error",
        status=("status_code",),
        code=("error_type",),
        retry_after=("retry_after",),
        client="celery_obs",
    ),
    # httpx and what it stands on.
    ClientError("httpx.HTTPStatusError", status=("response.status_code",), headers=("response.headers",), client="httpx"),
    ClientError("httpx.TimeoutException", kind="timeout", client="httpx"),
    ClientError("httpx.UnsupportedProtocol", kind="validation", client="httpx"),
    ClientError("httpx.TransportError", kind="network", client="httpx"),
    ClientError("httpx.TooManyRedirects", kind="server_error", client="httpx"),
    ClientError("httpx.DecodingError", kind="server_error", client="httpx"),
    ClientError("httpx.InvalidURL", kind="validation", client="httpx"),
    ClientError("httpcore.TimeoutException", kind="timeout", client="httpcore"),
    ClientError("httpcore.UnsupportedProtocol", kind="validation", client="httpcore"),
    ClientError("httpcore.NetworkError", kind="network", client="httpcore"),
    ClientError("httpcore.ProtocolError", kind="network", client="httpcore"),
    ClientError("httpcore.ProxyError", kind="network", client="httpcore"),
    # requests and what it stands on.
    ClientError("requests.ConnectTimeout", kind="timeout", client="requests"),
    ClientError("requests.Timeout", kind="timeout", client="requests"),
    ClientError("requests.InvalidURL", kind="validation", client="requests"),
    ClientError("requests.MissingSchema", kind="validation", client="requests"),
    ClientError("requests.InvalidSchema", kind="validation", client="requests"),
    ClientError("requests.TooManyRedirects", kind="server_error", client="requests"),
    ClientError("requests.ContentDecodingError", kind="server_error", client="requests"),
    ClientError("requests.InvalidJSONError", kind="server_error", client="requests"),
    ClientError("requests.RetryError", kind="server_error", inside=("args.0",), client="requests"),
    ClientError("requests.ConnectionError", kind="network", inside=("args.0",), client="requests"),
    ClientError(
        "requests.RequestException", kind="network", status=("response.status_code",), headers=("response.headers",), client="requests"
    ),
    ClientError("urllib3.MaxRetryError", kind="network", inside=("reason",), client="urllib3"),
    ClientError("urllib3.ResponseError", kind="server_error", text=r"too many ([1-9][0-9]{2}) error responses", client="urllib3"),
    # A time-out by its ancestry, not by what it means.
    ClientError("urllib3.NewConnectionError", kind="network", client="urllib3"),
    ClientError("urllib3.TimeoutError", kind="timeout", client="urllib3"),
    ClientError("urllib3.LocationValueError", kind="validation", client="urllib3"),
    ClientError("urllib3.HTTPError", kind="network", client="urllib3"),
    # aiohttp.
    ClientError("aiohttp.ContentTypeError", kind="server_error", headers=("headers",), client="aiohttp"),
    ClientError("aiohttp.TooManyRedirects", kind="server_error", client="aiohttp"),
    ClientError("aiohttp.ClientResponseError", kind="server_error", status=("status",), headers=("headers",), client="aiohttp"),
    ClientError("aiohttp.ServerTimeoutError", kind="timeout", client="aiohttp"),
    ClientError("aiohttp.ClientPayloadError", kind="server_error", client="aiohttp"),
    ClientError("aiohttp.InvalidURL", kind="validation", client="aiohttp"),
    ClientError("aiohttp.ClientError", kind="network", client="aiohttp"),
    # The standard library.
    ClientError("urllib.HTTPError", status=("code",), headers=("headers",), client="urllib"),
    ClientError("urllib.URLError", kind="network", inside=("reason",), client="urllib"),
    ClientError("http.HTTPException", kind="network", client="http.client"),
    ClientError("asyncio.TimeoutError", kind="timeout", client="asyncio"),
    ClientError("concurrent.TimeoutError", kind="timeout", client="concurrent.futures"),
    ClientError("socket.gaierror", kind="network", client="socket"),
    ClientError("socket.herror", kind="network", client="socket"),
    ClientError("ssl.SSLError", kind="network", client="ssl"),
    ClientError("json.JSONDecodeError", kind="server_error", client="json"),
    ClientError("builtins.BaseExceptionGroup", inside=("exceptions",), client="exception groups"),
    ClientError("exceptiongroup.BaseExceptionGroup", inside=("exceptions",), client="exception groups"),
    ClientError("builtins.TimeoutError", kind="timeout", client="Python"),
    ClientError("builtins.ConnectionError", kind="network", client="Python"),
    # Libraries that try again by themselves.
    ClientError("tenacity.RetryError", inside=("last_attempt.exception()",), client="tenacity"),
    ClientError("google.api_core.RetryError", kind="timeout", inside=("cause",), client="google-api-core"),
    # Clients of single providers.
    ClientError("stripe.APIConnectionError", kind="network", client="stripe"),
    ClientError(
        "stripe.StripeError",
        status=("http_status",),
        headers=("headers",),
        code=("code", "json_body.error.code"),
        codes={"rate_limit": "rate_limit", "lock_timeout": "rate_limit", **_OAUTH_CODES},
        client="stripe",
    ),
    ClientError("google.api_core.DeadlineExceeded", kind="timeout", client="google-api-core"),
    ClientError("google.api_core.GatewayTimeout", kind="timeout", client="google-api-core"),
    ClientError(
        "google.api_core.GoogleAPICallError",
        kind="server_error",
        status=("code",),
        headers=("response.headers",),
        code=("reason", "errors.0.reason"),
        codes=_GOOGLE_CODES,
        client="google-api-core",
    ),
    ClientError("google.auth.TransportError", kind="network", client="google-auth"),
    ClientError("google.auth.RefreshError", kind="auth", client="google-auth"),
    ClientError("google.auth.DefaultCredentialsError", kind="auth", client="google-auth"),
    ClientError(
        "googleapiclient.HttpError",
        status=("resp.status",),
        headers=("resp",),
        code=("error_details.0.reason",),
        codes=_GOOGLE_CODES,
        client="google-api-python-client",
    ),
    ClientError("httplib2.RedirectLimit", kind="server_error", client="httplib2"),
    ClientError("httplib2.HttpLib2Error", kind="network", client="httplib2"),
    ClientError("grpc.RpcError", kind="server_error", code=("code().name",), codes=_GRPC_CODES, client="grpc"),
    ClientError(
        "botocore.ClientError",
        kind="server_error",
        status=("response.ResponseMetadata.HTTPStatusCode",),
        headers=("response.ResponseMetadata.HTTPHeaders",),
        code=("response.Error.Code",),
        codes=_AWS_CODES,
        client="botocore",
    ),
    ClientError("botocore.ConnectTimeoutError", kind="timeout", client="botocore"),
    ClientError("botocore.ReadTimeoutError", kind="timeout", client="botocore"),
    ClientError("botocore.HTTPClientError", kind="network", client="botocore"),
    ClientError("botocore.ConnectionError", kind="network", client="botocore"),
    ClientError("botocore.NoCredentialsError", kind="auth", client="botocore"),
    ClientError("botocore.PartialCredentialsError", kind="auth", client="botocore"),
    ClientError("botocore.CredentialRetrievalError", kind="auth", client="botocore"),
    ClientError("botocore.ParamValidationError", kind="validation", client="botocore"),
    ClientError(
        "slack_sdk.SlackApiError",
        kind="server_error",
        status=("response.status_code",),
        headers=("response.headers",),
        code=("response.data.error",),
        codes=_SLACK_CODES,
        client="slack_sdk",
    ),
)
"""
What we know, from the libraries' own documentation and code.
"""

ANY_ERROR: Final = ClientError(
    "builtins.Exception",
    status=("response.status_code", "status_code", "http_status", "code", "status", "response.status"),
    headers=("headers", "response.headers"),
    client="all others",
)
"""
Where the status and the headers mostly are: for exceptions that no row names.
"""


# --- what users add ---------------------------------------------------------------------------------------------------------------

_CLASS: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_PATH: Final = re.compile(r"\w+(\(\))?(\.\w+(\(\))?)*")
_PATHS: Final = ("status", "headers", "code", "retry_after", "inside")


def client_errors(value: Any) -> tuple[ClientError, ...]:
    """
    Read the rows that a user wrote: a dict from the class to what it means, or to where to look.

    Raises:
        PolicyError: if one is wrong; the message names the class.
    """
    if not isinstance(value, Mapping):
        message = f"client_errors is {value!r:.100}; expected a dict from class to kind, such as {{'acme.errors.Busy': 'rate_limit'}}"
        raise PolicyError(message)
    return tuple(client_error(of, meaning) for of, meaning in value.items())


def client_error(of: Any, meaning: Any) -> ClientError:
    """
    Read one row: the class, and what it means or a dict of where to look.

    Raises:
        PolicyError: if it is wrong.
    """
    if not isinstance(of, str) or not _CLASS.fullmatch(of):
        message = f"{of!r:.100} in client_errors is not the name of a class; expected module and class, such as 'acme.errors.Busy'"
        raise PolicyError(message)
    if isinstance(meaning, str):
        return ClientError(of, kind=_kind(of, meaning), client=of.partition(".")[0])
    if not isinstance(meaning, Mapping):
        message = f"{of!r} is {meaning!r:.100}; expected one of {', '.join(ERROR_TYPES)}, or a dict of where to look"
        raise PolicyError(message)
    row = ClientError(of, client=of.partition(".")[0])
    for key, entry in meaning.items():
        row = row._replace(**{str(key): _read(of, key, entry)})
    return row


def _read(of: str, key: Any, entry: Any) -> Any:
    reader = _READERS.get(key) if isinstance(key, str) else None
    if reader is None:
        message = f"{of!r} has {key!r}; expected some of: {', '.join(_READERS)}"
        raise PolicyError(message)
    return reader(f"{of}: {key}", entry)


def _kind(where: str, entry: Any) -> ErrorType:
    for kind in ERROR_TYPES:
        if entry == kind:
            return kind
    message = f"{where!r} is {entry!r:.100}; expected one of: {', '.join(ERROR_TYPES)}"
    raise PolicyError(message)


def _path(where: str, entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, str) or not _PATH.fullmatch(entry):
        message = f"{where!r} is {entry!r:.100}; expected a path of attributes, such as 'response.status_code'"
        raise PolicyError(message)
    return (entry,)


def _codes(where: str, entry: Any) -> Mapping[str, ErrorType]:
    if not isinstance(entry, Mapping):
        message = f"{where!r} is {entry!r:.100}; expected a dict from a code to one of: {', '.join(ERROR_TYPES)}"
        raise PolicyError(message)
    return {str(code): _kind(f"{where}[{code!r}]", kind) for code, kind in entry.items()}


_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {"kind": _kind, **dict.fromkeys(_PATHS, _path), "codes": _codes}
