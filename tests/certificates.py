"""
Certificates for tests, made by openssl on the spot.
"""

from __future__ import annotations

import shutil
import subprocess

from pathlib import Path
from typing import NamedTuple

from .servers import missing


__all__ = ["Authority", "Certificate"]


class Certificate(NamedTuple):
    """
    Two PEM files.
    """

    cert: Path
    key: Path


class Authority:
    """
    Signs certificates; its own is at *cert*.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            missing("openssl")
        self._directory = directory
        self.cert = directory / f"{name}.pem"
        self._key = directory / f"{name}.key"
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.cert, "-days", "2", "-subj", f"/CN={name}")

    def issue(self, name: str, *, alternatives: str = "DNS:localhost,IP:127.0.0.1") -> Certificate:
        """
        Make a certificate for *name* with these alternative names.
        """
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\nauthorityKeyIdentifier=keyid\n")
        _openssl("req", *_NEW_KEY, "-keyout", made.key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key, "-out", made.cert, "-days", "2", "-extfile", extensions
        )
        return made


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
