"""
Which brokers a command looks at: what its options say, else what the app uses.
"""

from __future__ import annotations

import functools
import json
import os
import ssl

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from celery_obs.exceptions import ConfigurationError


if TYPE_CHECKING:
    from celery_obs.state.broker import Broker


__all__ = ["BrokerOptions", "broker_options", "configured_app"]


def broker_options(command: Callable[..., None]) -> Callable[..., None]:
    """
    Give a command the options that say how brokers are reached, as one argument *brokers*.
    """

    @functools.wraps(command)
    def with_brokers(*args: Any, **kwargs: Any) -> None:
        given = BrokerOptions(**{name: kwargs.pop(name) for name in _NAMES})
        command(*args, brokers=given, **kwargs)

    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), with_brokers)


_FILE = click.Path(path_type=Path)
_OPTIONS = (
    click.option(
        "--broker-url",
        "broker_urls",
        multiple=True,
        envvar="CELERY_OBS_BROKER_URL",
        show_default="the app's",
        help="Broker to ask about queues; may be repeated.",
    ),
    click.option("--broker-url-file", type=_FILE, envvar="CELERY_OBS_BROKER_URL_FILE", help="File with the brokers' URLs, one per line."),
    click.option("--broker-transport-option", "pairs", multiple=True, metavar="K=V", help="One broker_transport_option; may be repeated."),
    click.option(
        "--broker-transport-options",
        "options_json",
        default="",
        metavar="JSON",
        show_default=False,
        envvar="CELERY_OBS_BROKER_TRANSPORT_OPTIONS",
        help="All of them, or a list with one per broker.",
    ),
    click.option(
        "--broker-tls-ca-file", "ca_file", type=_FILE, envvar="CELERY_OBS_BROKER_TLS_CA_FILE", help="CA of the broker's certificate."
    ),
    click.option("--broker-tls-cert-file", "cert_file", type=_FILE, envvar="CELERY_OBS_BROKER_TLS_CERT_FILE", help="Client certificate."),
    click.option(
        "--broker-tls-key-file", "key_file", type=_FILE, envvar="CELERY_OBS_BROKER_TLS_KEY_FILE", help="Key of the client certificate."
    ),
    click.option(
        "--broker-tls-verify",
        "verify",
        type=click.Choice(["required", "optional", "none"]),
        envvar="CELERY_OBS_BROKER_TLS_VERIFY",
        metavar="LEVEL",
        show_default="required",
        help="Or optional, or none.",
    ),
    click.option(
        "--broker-sentinel-password-file",
        "sentinel_file",
        type=_FILE,
        envvar="CELERY_OBS_BROKER_SENTINEL_PASSWORD_FILE",
        help="File with the password of the sentinels.",
    ),
)
_NAMES = ("broker_urls", "broker_url_file", "pairs", "options_json", "ca_file", "cert_file", "key_file", "verify", "sentinel_file")


def configured_app(ctx: click.Context) -> Any:
    """
    Return the app of ``celery -A proj obs …``; None for a command of ours, and where no app was named that has a broker.
    """
    app = getattr(ctx.obj, "app", None)
    conf = getattr(app, "conf", None)
    if conf is None or not (conf.broker_url or conf.broker_read_url or conf.broker_write_url):
        return None
    return app


class BrokerOptions:
    """
    What was given, and what is made of it.
    """

    def __init__(
        self,
        *,
        broker_urls: tuple[str, ...],
        broker_url_file: Path | None,
        pairs: tuple[str, ...],
        options_json: str,
        ca_file: Path | None,
        cert_file: Path | None,
        key_file: Path | None,
        verify: str | None,
        sentinel_file: Path | None,
    ) -> None:
        self._urls = broker_urls
        self._url_file = broker_url_file
        self._pairs = pairs
        self._json = options_json
        self._tls = {"ca": ca_file, "cert": cert_file, "key": key_file, "verify": verify}
        self._sentinel_file = sentinel_file

    def brokers(self, app: Any = None) -> tuple[Broker, ...]:
        """
        Return the brokers that were given, else *app*'s; what else was given wins over what the app has.

        Raises:
            ConfigurationError: if something given cannot be used.
        """
        from celery_obs.state.broker import of_app, of_url  # noqa: PLC0415 -- help is quick.

        urls = [url for url in (*self._urls, *self._from_file()) if url]
        found = [of_url(url) for url in urls] if urls else [of_app(app)] if app is not None else []
        return tuple(self._complete(broker, number, len(found)) for number, broker in enumerate(found))

    def _from_file(self) -> list[str]:
        return [line.strip() for line in _read(self._url_file, "--broker-url-file").splitlines()] if self._url_file else []

    def _complete(self, broker: Broker, number: int, of: int) -> Broker:
        from celery_obs.state.broker import with_options  # noqa: PLC0415 -- as above.

        options = {**self._options(number, of), **dict(map(_pair, self._pairs))}
        password = (
            _read(self._sentinel_file, "--broker-sentinel-password-file").strip()
            if self._sentinel_file
            else os.environ.get("CELERY_OBS_BROKER_SENTINEL_PASSWORD", "")
        )
        if password and broker.scheme == "sentinel":
            known = {**(broker.options.get("sentinel_kwargs") or {}), **options.get("sentinel_kwargs", {})}
            options["sentinel_kwargs"] = {**known, "password": password}
        return with_options(broker, options, tls=self._tls_of(broker, alone=of == 1))

    def _options(self, number: int, of: int) -> dict[str, Any]:
        if not self._json.strip():
            return {}
        wrong = (
            f'--broker-transport-options is not a JSON object, or a list of {of}. Expected something like {{"master_name": "mymaster"}}.'
        )
        try:
            options = json.loads(self._json)
        except ValueError:
            raise ConfigurationError(wrong) from None
        if isinstance(options, list):
            if len(options) != of:
                raise ConfigurationError(wrong)
            options = options[number]
        if not isinstance(options, dict):
            raise ConfigurationError(wrong)
        return options

    def _tls_of(self, broker: Broker, *, alone: bool) -> Mapping[str, Any] | None:
        """
        Return ``broker_use_ssl`` as the broker's transport wants it; None where nothing was given for it.

        Of several brokers, those that are reached without TLS are left alone.
        """
        if not any(self._tls.values()) or not (alone or broker.scheme in {"rediss", "valkeys", "amqps", "sentinel"}):
            return None
        verify = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}[self._tls["verify"] or "required"]  # type: ignore[index]  # A choice of click's.
        names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if broker.is_redis else ("ca_certs", "certfile", "keyfile")
        files = {name: str(path) for name, path in zip(names, (self._tls[key] for key in ("ca", "cert", "key")), strict=True) if path}
        for path in files.values():
            _refuse_missing(Path(path))
        return {**files, ("ssl_cert_reqs" if broker.is_redis else "cert_reqs"): verify}


def _refuse_missing(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        message = f"The TLS file {path} cannot be read: {error.strerror}. Expected a file in PEM format."
        raise ConfigurationError(message) from None


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        message = f"{option} {path} cannot be read: {reason}."
        raise ConfigurationError(message) from None


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        message = "--broker-transport-option is not KEY=VALUE. Expected something like priority_steps=[0,5,9] or master_name=mymaster."
        raise ConfigurationError(message)
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value
