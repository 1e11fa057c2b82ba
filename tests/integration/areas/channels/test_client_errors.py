"""
What the libraries that teams use raise, each against a real server on loopback: its kind, and what the answer said about when to ask again.
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import sys
import urllib.request

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from celery_obs.areas.channels.breakers.api import outcome_of
from celery_obs.areas.channels.errors import AuthError, NetworkError, RateLimitError, classify, is_retryable, retry_after, status_of
from tests.channel_server import Answer, ChannelServer


pytestmark = [
    pytest.mark.integration,
    # Some of the libraries leave their connections to the garbage collector when they raise.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def channel() -> Iterator[ChannelServer]:
    """
    The channel.
    """
    with ChannelServer.running() as made:
        yield made
    gc.collect()


# --- one call with each library -------------------------------------------------------------------------------------------------


def by_httpx(url: str) -> None:
    import httpx

    httpx.get(f"{url}/listings").raise_for_status()


def by_requests(url: str) -> None:
    requests.get(f"{url}/listings", timeout=5).raise_for_status()


def by_requests_that_try_again(url: str) -> None:
    from requests.adapters import HTTPAdapter
    from urllib3.util.retry import Retry

    with requests.Session() as session:
        retry = Retry(total=2, status_forcelist=[402, 401, 429, 503], backoff_factor=0.0, respect_retry_after_header=False)
        session.mount(url, HTTPAdapter(max_retries=retry))
        session.get(f"{url}/listings", timeout=5)


def by_urllib(url: str) -> None:
    urllib.request.urlopen(f"{url}/listings", timeout=5).close()  # noqa: S310 -- our own server.


def by_urllib3(url: str) -> None:
    import urllib3

    with urllib3.PoolManager() as pool:
        pool.request("GET", f"{url}/listings", retries=urllib3.Retry(0, status_forcelist=[402, 401, 429, 503]))


def by_aiohttp(url: str) -> None:
    import aiohttp

    async def ask() -> None:
        async with aiohttp.ClientSession(url) as session, session.get("/listings") as response:
            response.raise_for_status()

    asyncio.run(ask())


def by_stripe(url: str) -> None:
    import stripe

    stripe.StripeClient("sk_test_x", base_addresses={"api": url}, max_network_retries=0).v1.customers.retrieve("cus_1")


def by_google_api_core(url: str) -> None:
    from google.api_core import exceptions

    response = requests.get(f"{url}/listings", timeout=5)
    if not response.ok:
        raise exceptions.from_http_response(response)


def by_googleapiclient(url: str) -> None:
    import httplib2

    from googleapiclient.http import HttpRequest

    HttpRequest(httplib2.Http(timeout=5), lambda _, content: content, f"{url}/listings").execute()


def by_botocore(url: str) -> None:
    import boto3

    from botocore.config import Config

    options = Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=5)
    boto3.client("s3", "eu-west-1", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="y", config=options).list_buckets()


def by_dynamodb(url: str) -> None:
    import boto3

    from botocore.config import Config

    options = Config(retries={"max_attempts": 0})
    made = boto3.client("dynamodb", "eu-west-1", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="y", config=options)
    made.list_tables()


def by_slack_sdk(url: str) -> None:
    from slack_sdk import WebClient

    WebClient("xoxb-1", base_url=f"{url}/").auth_test()


def by_tenacity(url: str) -> None:
    import tenacity

    tenacity.Retrying(stop=tenacity.stop_after_attempt(2))(by_httpx, url)


def by_google_retry(url: str) -> None:
    from google.api_core import exceptions, retry

    retry.Retry(retry.if_exception_type(exceptions.GoogleAPICallError), initial=0.001, maximum=0.001, timeout=0.0)(by_google_api_core)(url)


def with_a_cause(url: str) -> None:
    try:
        by_httpx(url)
    except Exception as exc:
        message = "our own word for it"
        raise LookupError(message) from exc


def in_a_group(url: str) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no groups of exceptions.")

    async def ask() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(by_httpx, url))

    asyncio.run(ask())


def caught(ask: Callable[[str], None], url: str) -> Exception:
    with pytest.raises(Exception) as found:  # noqa: PT011 -- each library has its own.
        ask(url)
    return found.value


CLIENTS = [
    by_httpx,
    by_requests,
    by_requests_that_try_again,
    by_urllib,
    by_urllib3,
    by_aiohttp,
    by_stripe,
    by_google_api_core,
    by_googleapiclient,
    by_botocore,
    by_slack_sdk,
    by_tenacity,
    by_google_retry,
    with_a_cause,
    in_a_group,
]
WITHOUT_HEADERS = {by_requests_that_try_again, by_urllib3}
"""
urllib3 keeps of an answer that it does not return the status alone, as a text.
"""


# --- what is told ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", CLIENTS, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize(
    ("status", "kind", "retryable", "outcome"),
    [
        (401, "auth", False, "success"),
        (402, "validation", False, "success"),
        (429, "rate_limit", True, "none"),
        (503, "server_error", True, "failure"),
    ],
)
def test_an_answer_has_its_kind_whichever_library_raised_it(
    channel: ChannelServer, ask: Callable[[str], None], *, status: int, kind: str, retryable: bool, outcome: str
) -> None:
    """
    Kind, status, whether trying again helps, and what the breaker makes of it; a card that was declined (402) opens none.
    """
    channel.answer(always=Answer(status, {"Retry-After": "7"}, {"error": {"message": "no"}}))

    error = caught(ask, channel.url)

    assert (kind, status, retryable, outcome) == (classify(error), status_of(error), is_retryable(error), outcome_of(error))
    assert (None if ask in WITHOUT_HEADERS else 7.0) == retry_after(error)


@pytest.mark.parametrize("ask", [each for each in CLIENTS if each is not by_slack_sdk], ids=lambda ask: ask.__name__)
def test_a_channel_that_hangs_up_is_the_networks_failure(channel: ChannelServer, ask: Callable[[str], None]) -> None:
    """
    No answer came; trying again may help.
    """
    channel.answer(always=Answer(0))

    error = caught(ask, channel.url)

    assert ("network", True) == (classify(error), is_retryable(error))


WORDS: list[tuple[Callable[[str], None], Answer, str]] = [
    (by_dynamodb, Answer(400, body={"__type": "com.amazon.coral.service#ThrottlingException", "message": "no"}), "rate_limit"),
    (by_dynamodb, Answer(400, body={"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "no"}), "auth"),
    (by_slack_sdk, Answer(200, body={"ok": False, "error": "token_revoked"}), "auth"),
    (by_slack_sdk, Answer(200, body={"ok": False, "error": "ratelimited"}), "rate_limit"),
    (by_slack_sdk, Answer(200, body={"ok": False, "error": "internal_error"}), "server_error"),
    (by_googleapiclient, Answer(403, body={"error": {"errors": [{"reason": "userRateLimitExceeded"}], "message": "no"}}), "rate_limit"),
    (by_googleapiclient, Answer(403, body={"error": {"errors": [{"reason": "forbidden"}], "message": "no"}}), "auth"),
    (by_google_api_core, Answer(403, body={"error": {"errors": [{"reason": "rateLimitExceeded"}], "message": "no"}}), "rate_limit"),
    (by_google_api_core, Answer(504), "timeout"),
    (by_stripe, Answer(409, body={"error": {"type": "api_error", "code": "lock_timeout", "message": "no"}}), "rate_limit"),
    (by_httpx, Answer(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}), "rate_limit"),
    (by_requests, Answer(403, {"X-RateLimit-Remaining": "12"}), "auth"),
]


@pytest.mark.parametrize(("ask", "answer", "kind"), WORDS, ids=[f"{n} {ask.__name__} {kind}" for n, (ask, _, kind) in enumerate(WORDS)])
def test_a_word_in_the_answer_says_more_than_its_status(
    channel: ChannelServer, ask: Callable[[str], None], answer: Answer, kind: str
) -> None:
    """
    AWS says 400 when it throttles, Google and GitHub 403, and Slack says 200 whatever happened.
    """
    channel.answer(always=answer)

    assert kind == classify(caught(ask, channel.url))


def test_a_port_where_nothing_listens_is_the_networks_failure() -> None:
    """
    With every library that opens connections.
    """
    url = "http://127.0.0.1:9"

    kinds = {ask.__name__: classify(caught(ask, url)) for ask in CLIENTS}

    assert {"network"} == set(kinds.values()), kinds


# --- groups and causes ----------------------------------------------------------------------------------------------------------


def group(*errors: Exception) -> Exception:
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no groups of exceptions.")
    made: Exception = vars(builtins)["ExceptionGroup"]("several", errors)
    return made


def test_of_a_group_the_kind_counts_with_which_trying_again_helps_least() -> None:
    """
    One refused token among time-outs is a refused token; the longest wait is the one that is asked for.
    """
    slow, slower = RateLimitError("no", retry_after=7.0), RateLimitError("no", retry_after=30.0)

    assert ("auth", False) == (classify(group(TimeoutError(), AuthError("no"))), is_retryable(group(TimeoutError(), AuthError("no"))))
    assert ("rate_limit", True, 30.0) == (
        classify(group(slow, group(slower, NetworkError("no")))),
        is_retryable(group(slow, slower)),
        retry_after(group(slow, slower)),
    )
    assert ("network", False) == (
        classify(group(NetworkError("no"), ValueError("a bug"))),
        is_retryable(group(NetworkError("no"), ValueError("a bug"))),
    )
    assert (None, False) == (classify(group(ValueError("a bug"))), is_retryable(group(ValueError("a bug"))))


def test_a_chain_that_bites_its_own_tail_or_has_no_end_is_looked_at_for_a_while() -> None:
    """
    Whatever a program links together, telling it apart ends.
    """
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    last: Any = TimeoutError()
    for _ in range(10_000):
        following = ValueError("and so on")
        following.__cause__ = last
        last = following

    assert (None, None) == (classify(one), classify(last))


def test_what_happened_while_another_error_was_handled_is_no_cause() -> None:
    """
    A bug in the code that handles a time-out is a bug.
    """

    def handle() -> None:
        try:
            raise TimeoutError
        except TimeoutError:
            dict[str, int]()["missing"]

    with pytest.raises(KeyError) as found:
        handle()

    assert (None, False) == (classify(found.value), is_retryable(found.value))


def test_the_status_of_a_program_that_exits_is_none_of_http() -> None:
    """
    ``sys.exit(429)`` is no rate limit.
    """
    assert classify(SystemExit(429)) is None
