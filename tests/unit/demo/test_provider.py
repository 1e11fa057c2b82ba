"""
The fake channel: what tests and the demo rely on when they talk to it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from email.utils import parsedate_to_datetime
from urllib.request import urlopen

import httpx
import pytest

from hypothesis import given
from hypothesis import strategies as st

from celery_obs.demo.provider import Accounts, Fault, Faults, Grant, Inventory, Provider, availability
from celery_obs.demo.provider.accounts import GrantRefusedError
from celery_obs.testing import FakeClock


DAY = date(2030, 1, 1)
CALENDAR = "/listings/l-1/calendar"
JANUARY = {"start": "2030-01-01", "end": "2030-01-31"}


@pytest.fixture
def provider() -> Iterator[Provider]:
    """
    A fake channel that also plays airbnb.
    """
    with Provider(channels=["airbnb"]) as made:
        yield made


@pytest.fixture
def client(provider: Provider) -> Iterator[httpx.Client]:
    """
    Talks to it.
    """
    with httpx.Client(base_url=provider.url, trust_env=False, timeout=10) as made:
        yield made


def refresh(client: httpx.Client, token: str) -> httpx.Response:
    """
    Ask for a new pair, as a client that is called by Basic.
    """
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return client.post("/oauth/token", data=form, auth=("demo-client", "demo-secret"))


def bearer(provider: Provider) -> dict[str, str]:
    """
    Say who we are.
    """
    return {"Authorization": f"Bearer {provider.accounts.authorize('conn-1').access_token}"}


def test_a_refresh_token_works_once(provider: Provider, client: httpx.Client) -> None:
    """
    It rotates: the old one is refused as soon as there is a new one.
    """
    first = provider.accounts.authorize("conn-1")

    second = refresh(client, first.refresh_token)
    again = refresh(client, first.refresh_token)

    assert 200 == second.status_code
    assert {"access_token", "refresh_token", "expires_in", "token_type"} == second.json().keys()
    assert (400, "invalid_grant") == (again.status_code, again.json()["error"])
    assert 2 == provider.requests("/oauth/token")


def test_with_grace_a_client_that_lost_the_new_token_may_use_the_old_one_again() -> None:
    """
    Until the new one was used, and no longer.
    """
    accounts = Accounts(reuse_grace=True)
    first = accounts.authorize("conn-1")

    lost = accounts.refresh(first.refresh_token)
    second = accounts.refresh(first.refresh_token)
    assert not accounts.accepts(lost.refresh_token)
    accounts.refresh(second.refresh_token)

    with pytest.raises(GrantRefusedError):
        accounts.refresh(first.refresh_token)


@given(grace=st.booleans(), choices=st.lists(st.integers(0, 5), max_size=20))
def test_whatever_is_tried_the_newest_token_works_and_nothing_is_left_behind(*, grace: bool, choices: list[int]) -> None:
    """
    Clients that always use the newest token are never locked out, and old tokens take no room.
    """
    accounts = Accounts(reuse_grace=grace)
    grants = [accounts.authorize("conn-1")]

    for choice in choices:
        token = grants[max(len(grants) - 1 - choice, 0)].refresh_token
        if accounts.accepts(token):
            grants.append(accounts.refresh(token))

    assert accounts.accepts(grants[-1].refresh_token)
    assert sum(accounts.accepts(grant.refresh_token) for grant in grants) <= (2 if grace else 1)
    assert len(accounts._by_refresh) <= 2
    assert len(accounts._by_access) <= 4


def test_the_client_may_say_who_it_is_in_the_form_and_is_refused_when_it_lies(provider: Provider, client: httpx.Client) -> None:
    """
    Basic and post both work; a wrong secret is a 401.
    """
    form = {"grant_type": "refresh_token", "refresh_token": provider.accounts.authorize("conn-1").refresh_token}

    wrong = client.post("/oauth/token", data={**form, "client_id": "demo-client", "client_secret": "guess"})
    right = client.post("/oauth/token", data={**form, "client_id": "demo-client", "client_secret": "demo-secret"})

    assert (401, "invalid_client") == (wrong.status_code, wrong.json()["error"])
    assert 200 == right.status_code


def test_a_revoked_account_gets_neither_a_token_nor_data(provider: Provider, client: httpx.Client) -> None:
    """
    invalid_grant at one end, 401 at the other.
    """
    headers = bearer(provider)
    token = provider.accounts.authorize("conn-1").refresh_token

    assert {"revoked": True} == client.delete("/admin/accounts/conn-1").json()

    assert "invalid_grant" == refresh(client, token).json()["error"]
    assert 401 == client.get(CALENDAR, params=JANUARY, headers=headers).status_code


def test_an_access_token_is_good_for_its_lifetime_and_no_longer() -> None:
    """
    The clock decides.
    """
    clock = FakeClock()
    accounts = Accounts(lifetime=30, clock=clock)
    token = accounts.authorize("conn-1").access_token

    clock.advance(29)
    assert "conn-1" == accounts.who(token)
    clock.advance(1)
    assert accounts.who(token) is None


def test_what_drifted_is_shown_and_can_be_mended(provider: Provider, client: httpx.Client) -> None:
    """
    A calendar is the truth but for the days that drifted, until the truth is written.
    """
    headers = bearer(provider)
    client.post("/admin/drift", json={"channel": "airbnb", "listing": "l-1", "start": "2030-01-05", "days": 3}).raise_for_status()

    shown = {each["date"]: each["available"] for each in client.get(f"/airbnb{CALENDAR}", params=JANUARY, headers=headers).json()["days"]}
    truth = {(DAY + timedelta(days=offset)).isoformat(): availability("l-1", DAY + timedelta(days=offset)) for offset in range(31)}
    wrong = [day for day, rooms in truth.items() if shown[day] != rooms]
    mended = client.put(f"/airbnb{CALENDAR}", headers=headers, json={"days": [{"date": day, "available": truth[day]} for day in wrong]})

    assert ["2030-01-05", "2030-01-06", "2030-01-07"] == wrong
    assert truth.keys() == shown.keys()
    assert 3 == mended.json()["changed"]
    assert 0 == provider.inventory.drifted()
    assert 1 == client.get("/admin/state").json()["requests"][f"/airbnb{CALENDAR}"] - 1


@given(st.dictionaries(st.dates(DAY, DAY + timedelta(days=9)), st.integers(0, 3)))
def test_a_calendar_is_what_was_written_over_the_truth(written: dict[date, int]) -> None:
    """
    And writing the truth again forgets every difference.
    """
    inventory = Inventory()
    truth = {DAY + timedelta(days=offset): availability("l-1", DAY + timedelta(days=offset)) for offset in range(10)}

    changed = inventory.write("airbnb", "l-1", written)

    assert truth | written == inventory.calendar("airbnb", "l-1", DAY, DAY + timedelta(days=9))
    assert changed == inventory.drifted() == inventory.write("airbnb", "l-1", truth)
    assert 0 == inventory.drifted()


@pytest.mark.parametrize(
    ("query", "status"),
    [({}, 422), ({"start": "2030-01-02", "end": "2030-01-01"}, 422), ({"start": "2030-01-01", "end": "2033-01-01"}, 422), (JANUARY, 200)],
)
def test_a_window_is_checked(provider: Provider, client: httpx.Client, query: dict[str, str], status: int) -> None:
    """
    Neither backwards nor longer than two years.
    """
    assert status == client.get(CALENDAR, params=query, headers=bearer(provider)).status_code


@pytest.mark.parametrize("written", ["seconds", "date"])
def test_too_many_calls_are_told_when_to_come_again(written: str) -> None:
    """
    429 with Retry-After in either form, and the window slides.
    """
    clock = FakeClock()
    with (
        Provider(rate_limit=2, rate_window=10, retry_after=written, clock=clock) as provider,  # type: ignore[arg-type]  # One of the two.
        httpx.Client(base_url=provider.url, trust_env=False) as client,
    ):
        headers = bearer(provider)
        answers = [client.get(CALENDAR, params=JANUARY, headers=headers) for _ in range(3)]
        clock.advance(10)
        later = client.get(CALENDAR, params=JANUARY, headers=headers)

    assert [200, 200, 429, 200] == [each.status_code for each in (*answers, later)]
    told = answers[-1].headers["Retry-After"]
    assert 10 <= (float(told) if written == "seconds" else parsedate_to_datetime(told).timestamp() - clock.now + 10) <= 11


def test_an_outage_is_over_after_its_time() -> None:
    """
    A fault ends by time, by count, or when it is cleared.
    """
    clock = FakeClock()
    faults = Faults(clock=clock)
    faults.switch_on(Fault("outage", path="/airbnb", seconds=5))
    faults.switch_on(Fault("slow", times=1))

    hits = [faults.hits("/airbnb/oauth/token"), faults.hits("/oauth/token"), faults.hits("/airbnb/x")]
    clock.advance(5)

    assert ["slow", None, "outage"] == [hit.kind if hit else None for hit in hits]
    assert faults.hits("/airbnb/x") is None
    faults.switch_on(Fault("drop", path="/expedia"))
    faults.clear("/expedia")
    assert () == faults.active()


def test_each_fault_looks_as_it_does_in_life(provider: Provider, client: httpx.Client) -> None:
    """
    503, any status, a page instead of JSON, a redirect without end, 429, a dropped connection, an odd lifetime.
    """

    def ask(**fault: object) -> httpx.Response:
        client.post("/admin/faults", json={"times": 1, **fault}).raise_for_status()
        return refresh(client, grants[-1].refresh_token)

    grants = [provider.accounts.authorize("conn-1")]

    assert 503 == ask(kind="outage").status_code
    assert 418 == ask(kind="status", value=418).status_code
    assert "text/html" in ask(kind="html").headers["Content-Type"]
    assert "/oauth/token" == ask(kind="redirect").headers["Location"]
    assert "7" == ask(kind="rate_limit", value=7).headers["Retry-After"]
    with pytest.raises(httpx.RemoteProtocolError):
        ask(kind="drop")
    assert provider.accounts.accepts(grants[-1].refresh_token)
    assert "soon" == ask(kind="expires_in", value="soon").json()["expires_in"]
    assert 200 == refresh(client, provider.accounts.authorize("conn-1").refresh_token).status_code


def test_an_endless_body_goes_on_until_the_client_has_had_enough(provider: Provider, client: httpx.Client) -> None:
    """
    Megabytes of one JSON document, and the server lives on.
    """
    provider.faults.switch_on(Fault("endless", times=1))
    received = 0
    with client.stream("GET", CALENDAR) as answer:
        for piece in answer.iter_raw():
            received += len(piece)
            if received > 1 << 20:
                break

    assert 401 == client.get(CALENDAR).status_code


def _answer(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100)
    except ConnectionResetError:  # The server may end before it has read the question.
        return b""


def test_a_slow_answer_does_not_delay_the_end(provider: Provider) -> None:
    """
    A request that waits gets no answer when the server stops.
    """
    provider.faults.switch_on(Fault("slow", value=600))
    with ThreadPoolExecutor(1) as pool, socket.create_connection(("127.0.0.1", int(provider.url.rpartition(":")[2]))) as waiting:
        waiting.sendall(b"GET /listings/x/calendar HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = pool.submit(_answer, waiting)
        provider.stop()
        assert b"" == answer.result(10)


@pytest.mark.parametrize(
    ("request_line", "body", "status"),
    [
        ("GET /oauth/token", b"", 405),
        ("GET /nowhere", b"", 404),
        ("POST /admin/faults", b'{"kind": "flood"}', 422),
        ("POST /admin/faults", b"[]", 400),
        ("POST /admin/drift", b'{"listing": "l-1", "start": "soon"}', 422),
        ("POST /admin/accounts", b"x" * (1 << 20) + b"x", 413),
        (f"PUT {CALENDAR}", b'{"days": [{"date": "2030-01-01", "available": -1}]}', 422),
        (f"PUT {CALENDAR}", b"\xff", 400),
    ],
)
def test_nonsense_is_refused(provider: Provider, client: httpx.Client, request_line: str, body: bytes, status: int) -> None:
    """
    With a status that says whose mistake it was.
    """
    assert status == client.request(*request_line.split(), content=body, headers=bearer(provider)).status_code


def test_many_clients_at_once_are_each_counted_once(provider: Provider) -> None:
    """
    Of a hundred that race with one refresh token, one wins, and all are counted.
    """
    token = provider.accounts.authorize("conn-1").refresh_token
    with (
        httpx.Client(base_url=provider.url, trust_env=False, limits=httpx.Limits(max_connections=32)) as client,
        ThreadPoolExecutor(32) as pool,
    ):
        statuses = list(pool.map(lambda _: refresh(client, token).status_code, range(100)))

    assert 1 == statuses.count(200)
    assert 100 == provider.requests("/oauth/token")
    assert 1 == provider.accounts.refreshes("conn-1")


def test_paths_without_end_are_counted_together(provider: Provider) -> None:
    """
    A thousand by name, the others as one.
    """
    for number in range(1500):
        provider.note(f"/{number}")

    assert 500 == provider.all_requests()["_other"]


def test_as_a_process_it_says_where_it_is_and_ends_when_told() -> None:
    """
    The URL is the first line.
    """
    command = [sys.executable, "-m", "celery_obs.demo.provider", "--channel", "airbnb", "--rate-limit", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with urlopen(f"{url}/admin/state", timeout=10) as answer:  # noqa: S310 -- our own.
                assert 200 == answer.status
        finally:
            process.send_signal(signal.SIGTERM)
    assert 0 == process.returncode


def test_a_grant_has_room_for_what_oauth_needs() -> None:
    """
    Three fields, nothing else.
    """
    assert ("access_token", "refresh_token", "expires_in") == Grant._fields
