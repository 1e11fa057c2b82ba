"""
The pages about tokens: each of their examples is run, against endpoints that answer as the providers do.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celery_obs.areas.channels.connections.state import Connection
from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.tokens.providers import PROVIDERS
from celery_obs.demo.provider.zoo import CLIENT_ID, CLIENT_SECRET, SPECIES, Zoo
from tests.servers import RedisServer
from tests.tokens import KEY, rig_of


pytestmark = pytest.mark.integration

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
ONE = "conn-1"


@pytest.fixture(scope="module")
def zoo() -> Iterator[Zoo]:
    with Zoo() as zoo:
        yield zoo


def examples(page: str) -> dict[str, Any]:
    """
    Return the names that a page's examples define, all of them run in order.
    """
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, page, "exec"), names)  # noqa: S102 -- our own page.
    return names


def in_the_zoo(zoo: Zoo, channel: str, client: dict[str, Any]) -> dict[str, Any]:
    """
    Give a client of a page who it is, and where the provider is in this test.
    """
    provider = client.get("provider", channel)
    return {**client, "provider": provider, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "token_url": zoo.token_url(provider)}


def test_the_page_on_adding_a_provider_names_all_that_are_known() -> None:
    """
    And every field that a description may have.
    """
    page = (PAGES / "add-a-provider.md").read_text(encoding="utf-8")

    assert ", ".join(f"`{name}`" for name in sorted(SPECIES)) in page
    described = {"name", "documents", "url_parameters", "rotates"}
    assert [] == [name for name in PROVIDERS["none"].__slots__ if name not in described and f"`{name}`" not in page]


def test_a_known_provider_is_added_as_the_page_says(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    From the web application's callback to a refreshed token, with a URL for each shop.
    """
    page = examples("add-a-provider.md")
    clients = {channel: in_the_zoo(zoo, channel, page["CLIENTS"][channel]) for channel in ("fitbit", "shopify", "outlook")}
    with rig_of(redis_server.url, oauth_clients=clients) as rig:
        rig.redis.flushall()
        for channel, provider in (("fitbit", "fitbit"), ("outlook", "microsoft"), ("shopify", "shopify")):
            given = zoo.authorize(provider, channel)
            answer = dict(SPECIES[provider].good(given.access_token, given.refresh_token, 0))
            if channel == "shopify":
                page["shop_authorised"](channel, "acme", answer)
            else:
                page["authorised"](channel, channel, answer)

            assert "refreshed" == tokens.refresh(channel, force=True).status
            assert ["good"] == zoo.asked(provider)


def test_a_provider_that_is_not_known_is_described_as_the_page_says(redis_server: RedisServer) -> None:
    """
    The answers of its pages mean what they should, and everything that the page shows is a client.
    """
    page = examples("add-a-provider.md")
    with rig_of(redis_server.url, oauth_clients=page["CLIENTS"]):
        page["check"]()


def test_the_hooks_of_the_page_work(redis_server: RedisServer) -> None:
    """
    The request is signed, and the token is found two levels deep; an app that was uninstalled ends the grant.
    """
    page = examples("add-a-provider.md")
    signatures: list[str] = []
    answers: list[Any] = [
        {"result": {"session": {"access_token": "at-2", "refresh_token": "rt-2", "expires_in": 60}}},
        {"state": "uninstalled"},
    ]

    class Handler(BaseHTTPRequestHandler):
        """
        One request.
        """

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            signatures.append(self.headers["X-Signature"])
            content = json.dumps(answers.pop(0)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """
            Say nothing.
            """

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        client = {**page["CLIENTS"]["other"], "token_url": f"http://127.0.0.1:{server.server_address[1]}/session"}
        with rig_of(redis_server.url, oauth_clients={"other": client}) as rig:
            rig.redis.flushall()
            rig.facts.register([Connection(ONE, "other")])
            tokens.store(ONE, tokens.Token(access_token="at-1", refresh_token="rt-1"))
            tokens.refresh(ONE, force=True)
            found = tokens.get(ONE)
            with pytest.raises(tokens.TokenRefusedError):
                tokens.refresh(ONE, force=True)
        server.shutdown()
        thread.join()

    assert found is not None
    assert "rt-2" == found.refresh_token
    assert [64, 64] == [len(each) for each in signatures]


def test_one_moves_from_authlib_as_the_page_says(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    What Authlib's session kept is stored and refreshed, a new customer's answer too, and calls carry the token of the moment.
    """
    page = examples("move-from-authlib.md")
    client = in_the_zoo(zoo, "quickbooks", page["CLIENTS"]["quickbooks"])
    seen: list[str] = []

    class Api(BaseHTTPRequestHandler):
        """
        The provider's data.
        """

        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"name": "Acme"}')

        def log_message(self, *args: Any) -> None:
            """
            Say nothing.
            """

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Api) as server,
        rig_of(redis_server.url, oauth_clients={"quickbooks": client}) as rig,
    ):
        rig.redis.flushall()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        old, new = zoo.authorize("quickbooks", ONE), zoo.authorize("quickbooks", "conn-2")
        kept = {"access_token": old.access_token, "refresh_token": old.refresh_token, "expires_at": int(rig.engine.clock()) + 10}
        page["move"]([SimpleNamespace(connection_id=ONE, token=kept)])
        answer = SPECIES["quickbooks"].good(new.access_token, new.refresh_token, 0)
        page["callback"]("conn-2", SimpleNamespace(fetch_token=lambda *_, **__: answer), "https://proj.example/callback?code=1")

        names = [
            page["company"](connection_id, f"http://127.0.0.1:{server.server_address[1]}/company") for connection_id in (ONE, "conn-2")
        ]
        server.shutdown()
        thread.join()

    # The first had ten seconds left, and was refreshed on the way.
    assert ["good"] == zoo.asked("quickbooks")
    assert [{"name": "Acme"}] * 2 == names
    assert f"Bearer {old.access_token}" != seen[0]
    assert f"Bearer {new.access_token}" == seen[1]


def test_keeping_tokens_fresh_runs(redis_server: RedisServer, zoo: Zoo) -> None:
    """
    The page's own functions: a first token, the headers of a call, and new keys.
    """
    page = examples("keep-tokens-fresh.md")
    client = {"token_url": zoo.token_url("airbnb"), "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    with rig_of(redis_server.url, oauth_clients={"airbnb": client}) as rig:
        rig.redis.flushall()
        given = zoo.authorize("airbnb", ONE)

        page["authorised"](ONE, {"access_token": given.access_token, "refresh_token": given.refresh_token, "expires_in": 30})

        assert {"Authorization": f"Bearer {given.access_token}"} == page["headers"](ONE)
        assert {"Authorization": f"Bearer {given.access_token}"} != page["fresh_headers"](ONE)
        page["change_keys"]()


DJANGO = """
import json, re, sys
from pathlib import Path

import django
from django.conf import settings

redis_url, token_url, refresh_token, key, page, database, late = sys.argv[1:]
settings.configure(DATABASES={"default": {"ENGINE": "tests.integration.apps.fragile", "NAME": database}}, DEFAULT_AUTO_FIELD="django.db.models.AutoField")
django.setup()
from cryptography.fernet import Fernet
from django.db import connection, models

class Row(models.Model):
    connection = models.CharField(max_length=200, primary_key=True)
    version = models.IntegerField(default=1)
    sealed = models.TextField()
    class Meta:
        app_label = "proj"

with connection.schema_editor() as editor:
    editor.create_model(Row)

from celery_obs.areas.channels.tokens import api as tokens
from celery_obs.areas.channels.connections.state import Connection
from tests.tokens import rig_of

source = next(block for block in re.findall(r"```python\\n(.*?)```", Path(page).read_text(), re.DOTALL) if "class TableOfTokens" in block)
names = {}
exec(source, names)
fernet = Fernet(key)

def seal(token):
    return fernet.encrypt(json.dumps([token.access_token, token.refresh_token, token.expires_at, token.lifetime, token.issued_at]).encode()).decode()

def open_(sealed):
    access, refresh, expires_at, lifetime, issued_at = json.loads(fernet.decrypt(sealed))
    return tokens.Token(access_token=access, refresh_token=refresh, expires_at=expires_at, lifetime=lifetime, issued_at=issued_at)

table = names["TableOfTokens"](Row, seal, open_)
client = {"provider": "fitbit", "token_url": token_url, "client_id": "zoo-client", "client_secret": "zoo-secret"}
with rig_of(redis_url, oauth_clients={"fitbit": client}, token_source=table) as rig:
    rig.facts.register([Connection("conn-1", "fitbit")])
    tokens.store("conn-1", tokens.Token(access_token="at", refresh_token=refresh_token))

    def reached(point):
        if point == "understood":
            if late == "consent":
                tokens.store("conn-1", tokens.Token(access_token="at-consent", refresh_token="rt-consent"))
            else:
                connection.connection.close()  # As a server does that was restarted, or a proxy after some minutes.

    tokens.reached = reached
    outcome = tokens.refresh("conn-1", force=True)
    print(json.dumps([outcome.status, tokens.get("conn-1").refresh_token, Row.objects.get().version]))
"""


@pytest.mark.parametrize(("late", "expected"), [("death", "refreshed"), ("consent", "superseded")])
def test_tokens_in_a_table_of_djangos(redis_server: RedisServer, zoo: Zoo, tmp_path: Path, late: str, expected: str) -> None:
    """
    The page's source on a real table: a database connection that died during the refresh is made anew, and a consent wins.
    """
    given = zoo.authorize("fitbit", late)
    arguments = [redis_server.url, zoo.token_url("fitbit"), given.refresh_token, KEY, PAGES / "keep-tokens-fresh.md", tmp_path / "db", late]

    done = subprocess.run(
        [sys.executable, "-c", DJANGO, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )

    assert "" == done.stderr[-3000:]
    status, refresh_token, version = json.loads(done.stdout)
    assert (expected, 2) == (status, version)
    assert ("rt-consent" == refresh_token) == (late == "consent")
    assert zoo.accepts("fitbit", refresh_token) == (late == "death")
