"""Who asks: the API server, known by its client certificate, says for whom it asks. Pure.

Invariant: `X-Remote-*` headers are believed only on a connection whose certificate was verified against the
request-header authority and carries one of the allowed names. Anybody can send headers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Headers(Protocol):
    """Headers, several values a name."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """All values of a header."""
        ...


@dataclass(frozen=True, slots=True)
class RequestHeaderTrust:
    """ConfigMap `kube-system/extension-apiserver-authentication`, as far as it is about proxied requests."""

    authority: str
    """PEM."""
    allowed_names: tuple[str, ...]
    """Common names of client certificates; any, if there are none."""
    user_headers: tuple[str, ...]
    group_headers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User:
    """For whom the API server asks."""

    name: str
    groups: tuple[str, ...]


def read_trust(config_map: Mapping[str, Any]) -> RequestHeaderTrust:
    """Read the ConfigMap.

    Raises:
        ValueError: the cluster has no request-header authority, or the ConfigMap is not as Kubernetes writes it.
    """
    data = config_map.get("data") or {}
    authority = data.get("requestheader-client-ca-file", "")
    if not authority:
        raise ValueError("the API server has no request-header authority (--requestheader-client-ca-file)")
    return RequestHeaderTrust(
        authority=authority,
        allowed_names=_names(data, "requestheader-allowed-names"),
        user_headers=_names(data, "requestheader-username-headers"),
        group_headers=_names(data, "requestheader-group-headers"),
    )


def user_of(certificate: Mapping[str, Any] | None, headers: Headers, trust: RequestHeaderTrust) -> User | None:
    """The user of a request; None if nobody we trust says who it is. `certificate` is as `getpeercert` gives it."""
    if not certificate:
        return None
    if trust.allowed_names and not set(common_names(certificate)) & set(trust.allowed_names):
        return None
    names = _values(headers, trust.user_headers)
    return User(names[0], tuple(_values(headers, trust.group_headers))) if names and names[0] else None


def common_names(certificate: Mapping[str, Any]) -> list[str]:
    """Common names in the subject of a certificate."""
    return [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]


def _values(headers: Headers, names: Sequence[str]) -> list[str]:
    return [value for name in names for value in headers.getall(name, [])]


def _names(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    names = json.loads(data.get(key, "[]"))
    if not isinstance(names, list):
        raise ValueError(f"{key} is not a list")
    return tuple(str(name) for name in names)
