"""Certificates for the metrics API's tests, made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str) -> Pair:
    """A self-signed authority."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    _openssl(
        *_request(name, pair),
        "-x509",
        "-days",
        "2",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        str(pair.certificate),
    )
    return pair


def signed(folder: Path, name: str, by: Pair, usage: str) -> Pair:
    """A certificate for `name`, signed by an authority. `usage` is clientAuth or serverAuth."""
    pair = Pair(folder / f"{name}-{by.certificate.stem}.crt", folder / f"{name}-{by.certificate.stem}.key")
    extensions = ["-addext", f"extendedKeyUsage={usage}", "-addext", "subjectAltName=IP:127.0.0.1"]
    issuer = ["-CA", str(by.certificate), "-CAkey", str(by.key)]
    _openssl(*_request(name, pair), "-x509", "-days", "2", *issuer, *extensions, str(pair.certificate))
    return pair


def _request(name: str, pair: Pair) -> list[str]:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    return ["req", *curve, "-subj", f"/CN={name}", "-keyout", str(pair.key)]


def _openssl(*arguments: str) -> None:
    *options, out = arguments
    subprocess.run(["openssl", *options, "-out", out], check=True, capture_output=True, timeout=30)
