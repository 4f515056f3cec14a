"""How a registry is asked: its base URL, the credentials for it, and the token that it wants for a repository.

The challenge is read by oras. Credentials go to the registry itself and to a token server of the same site (as
auth.docker.io is for registry-1.docker.io), never elsewhere; from elsewhere an anonymous token is still taken.
"""

import base64
import binascii
import json
from typing import Any, Final

from oras.auth.utils import parse_auth_header
from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import Credentials, SourceError
from motet_operator.store.sources.http_client import HttpClient, read_url, shown
from motet_operator.store.sources.http_source import authorization
from motet_operator.store.sources.oci_manifest import OciRef

_DOCKER_CONFIG: Final = ".dockerconfigjson"
_DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io"})
_DOCKER_HUB_HOST: Final = "registry-1.docker.io"
_MAX_TOKEN_BYTES: Final = 1 << 20


def base_url(ref: OciRef, plain: frozenset[str]) -> URL:
    """The repository's URL; `plain` are the registries that speak http."""
    host = _DOCKER_HUB_HOST if ref.registry in _DOCKER_HUB else ref.registry
    scheme = "http" if ref.registry in plain else "https"
    return read_url(f"{scheme}://{host}/v2/{ref.repository}")


async def access(client: HttpClient, ref: OciRef, base: URL, credentials: Credentials) -> dict[str, str]:
    """The Authorization header to ask the registry with; none where it wants none. Raises: SourceError."""
    own = _login(ref, credentials)
    probe = base.with_path("/v2/")
    async with client.open(probe, passing=frozenset({401, 404})) as answer:
        if answer.status != 401:
            return own
        challenge = answer.headers.get("WWW-Authenticate", "")
    if not challenge.lower().startswith("bearer") or own.get("Authorization", "").startswith("Bearer"):
        return own
    return await _token(client, ref, base, challenge, own)


async def _token(client: HttpClient, ref: OciRef, base: URL, challenge: str, own: dict[str, str]) -> dict[str, str]:
    asked = parse_auth_header(challenge)
    realm = read_url(str(asked.realm or ""))
    if base.scheme == "https" and realm.scheme != "https":
        raise SourceError(AdapterReason.SOURCE_NOT_ALLOWED, f"{ref.registry} wants its token fetched over plain http")
    query = {"scope": f"repository:{ref.repository}:pull", **({"service": asked.service} if asked.service else {})}
    secret = own if _same_site(base, realm) else {}
    body = await client.document(realm.update_query(query), _MAX_TOKEN_BYTES, secret=secret)
    try:
        answer = json.loads(body)
        token = answer.get("token") or answer["access_token"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise SourceError(AdapterReason.FETCH_FAILED, f"{shown(realm)} answers no token") from error
    return authorization({"token": str(token).encode()})


def _same_site(one: URL, other: URL) -> bool:
    """Whether two hosts are the same, or share the domain above them (of two labels at least)."""
    first, second = one.host or "", other.host or ""
    if first == second:
        return other.scheme in {one.scheme, "https"}
    if first.replace(".", "").isdigit() or ":" in first:
        return False
    site = ".".join(first.split(".")[-2:])
    return "." in site and (second == site or second.endswith(f".{site}"))


def _login(ref: OciRef, credentials: Credentials) -> dict[str, str]:
    """The header of the Secret's own credentials. Raises: SourceError."""
    if _DOCKER_CONFIG not in credentials:
        return authorization(credentials)
    try:
        auths = json.loads(credentials[_DOCKER_CONFIG])["auths"]
        for name, entry in auths.items():
            if _names(name, ref.registry):
                return authorization(_pair(entry))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, binascii.Error) as error:
        message = ".dockerconfigjson of the Secret is none: make it by kubectl create secret docker-registry"
        raise SourceError(AdapterReason.SOURCE_FORBIDDEN, message) from error
    return {}


def _names(entry: str, registry: str) -> bool:
    """Whether an entry of auths, `host` or `https://host/v1/`, is for the registry."""
    host = entry.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return host == registry or (host in _DOCKER_HUB and registry in _DOCKER_HUB)


def _pair(entry: Any) -> Credentials:
    if entry.get("registrytoken"):
        return {"token": str(entry["registrytoken"]).encode()}
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"], validate=True).partition(b":")
        return {"username": user, "password": password}
    return {"username": str(entry["username"]).encode(), "password": str(entry["password"]).encode()}
