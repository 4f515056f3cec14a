"""`oci://` against CNCF distribution, a real registry: pushed by oras, open, with a password, and with tokens."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oras.client
import pytest
from aiohttp import web

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import SourceError, SourceRef
from motet_operator.store.sources.schemes import Sources
from tests.operator.store_sources.programs import PASSWORD, USER, oci_registry
from tests.operator.store_sources.registry import MANIFEST_TYPE, blob_digest, layer, manifest
from tests.operator.store_sources.servers import GOOD, WEIGHTS, bytes_below, content, fetch, served, settings

HTPASSWD = "puller:$2b$04$kfOsrbZCbyoRemL4O85Sr.XVdLxkXNYlFEax5b6SW2Cxa/G6uhj8q\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with oci_registry(tmp_path_factory.mktemp("registry")) as address:
        push(address, tmp_path_factory.mktemp("pushed"))
        yield address


def push(address: str, folder: Path, **login: str) -> None:
    """Two artifacts as oras makes them: files, and a folder that it packs."""
    adapter = folder / "adapter"
    adapter.mkdir()
    for name, data in {**GOOD, "notes.md": b"# hi"}.items():
        (adapter / name).write_bytes(data)
    client = oras.client.OrasClient(hostname=address, insecure=True, auth_backend="basic" if login else "token")
    if login:
        client.auth.set_basic_auth(login["username"], login["password"])
    files = [str(adapter / name) for name in (*GOOD, "notes.md")]
    client.push(f"{address}/team/adapter:v1", files=files, disable_path_validation=True)
    client.push(f"{address}/team/packed:v1", files=[str(adapter)], disable_path_validation=True)
    client.session.close()


@pytest.mark.process
@pytest.mark.parametrize("name", ["adapter", "packed"])
async def test_artifact(name: str, registry: str, tmp_path: Path) -> None:
    into, scratch = tmp_path / "into", tmp_path / "scratch"
    into.mkdir()
    async with Sources(settings(scratch, plain_http_registries=frozenset({registry}))) as sources:
        listing = await fetch(sources, f"oci://{registry}/team/{name}:v1", into)
        pinned = f"oci://{registry}/team/{name}@{listing.revision}"
        assert (await sources.open_source(pinned).list(SourceRef(pinned), {})).revision == listing.revision
        await sources.open_source(pinned).release(listing)
    assert content(into) == GOOD
    assert listing.revision.startswith("sha256:")
    assert listing.passed_over == ("notes.md",)
    assert bytes_below(scratch) == 0


@pytest.mark.process
async def test_resumed_read(registry: str, tmp_path: Path) -> None:
    uri = f"oci://{registry}/team/adapter:v1"
    async with Sources(settings(tmp_path / "scratch", plain_http_registries=frozenset({registry}))) as sources:
        source, ref = sources.open_source(uri), SourceRef(uri)
        listing = await source.list(ref, {})
        rest = b"".join([chunk async for chunk in source.read(ref, listing, listing.files[1], 4097, {})])
    assert rest == WEIGHTS[4097:]


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("adapter:none", AdapterReason.SOURCE_NOT_FOUND),
        ("none:v1", AdapterReason.SOURCE_NOT_FOUND),
        ("adapter@sha256:" + "0" * 64, AdapterReason.SOURCE_NOT_FOUND),
    ],
)
async def test_refused_by_the_registry(name: str, reason: AdapterReason, registry: str, tmp_path: Path) -> None:
    async with Sources(settings(tmp_path / "scratch", plain_http_registries=frozenset({registry}))) as sources:
        with pytest.raises(SourceError) as caught:
            await fetch(sources, f"oci://{registry}/team/{name}", tmp_path)
    assert caught.value.reason is reason, caught.value


def docker_config(address: str, password: str = PASSWORD) -> dict[str, bytes]:
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    document = {"auths": {"other.test": {"auth": "eA=="}, address: {"auth": auth}}}
    return {".dockerconfigjson": json.dumps(document).encode()}


@pytest.mark.process
async def test_registry_with_a_password(tmp_path: Path) -> None:
    for name in ("registry", "pushed", "into"):
        (tmp_path / name).mkdir()
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth: dict[str, object] = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with oci_registry(tmp_path / "registry", auth) as address:
        push(address, tmp_path / "pushed", username=USER, password=PASSWORD)
        uri = f"oci://{address}/team/adapter:v1"
        async with Sources(settings(tmp_path / "scratch", plain_http_registries=frozenset({address}))) as sources:
            for good in ({"username": USER.encode(), "password": PASSWORD.encode()}, docker_config(address)):
                await fetch(sources, uri, tmp_path / "into", good)
                assert content(tmp_path / "into") == GOOD
            for bad in ({}, docker_config(address, "wrong"), docker_config("elsewhere.test")):
                with pytest.raises(SourceError) as caught:
                    await fetch(sources, uri, tmp_path / "into", bad)
                assert caught.value.reason is AdapterReason.SOURCE_FORBIDDEN, caught.value
                assert PASSWORD not in caught.value.message


def tokens(realm: list[str], held: dict[str, bytes]) -> Any:
    """A registry that wants a token of `realm`, and the token server itself."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            if request.headers.get("Authorization", "").startswith("Basic"):
                return web.json_response({"token": f"for {request.query['scope']}".replace(" ", "-")})
            return web.json_response({"access_token": "anonymous"})
        if request.headers.get("Authorization") not in {"Bearer for-repository:team/adapter:pull"}:
            challenge = f'Bearer realm="{realm[0]}",service="registry",scope="registry:catalog:*"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        body = held.get(request.path.rpartition("/")[2])
        return web.Response(status=404) if body is None else web.Response(body=body, content_type=MANIFEST_TYPE)

    return answer


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_token_server(elsewhere: bool, tmp_path: Path) -> None:
    """The password goes to the registry's own token server, and to no other host that the registry names."""
    into = tmp_path / "into"
    into.mkdir()
    body = manifest(*(layer(name, data) for name, data in GOOD.items()))
    held = {"v1": body, **{blob_digest(data): data for data in GOOD.values()}}
    realm = [""]
    login = {"username": USER.encode(), "password": PASSWORD.encode()}
    async with served(tokens(realm, held)) as server, served(tokens(realm, held)) as other:
        host = server.url.removeprefix("http://")
        realm[0] = f"http://localhost:{other.port}/token" if elsewhere else f"{server.url}/token"
        made = settings(tmp_path / "scratch", plain_http_registries=frozenset({host}))
        async with Sources(made) as sources:
            if not elsewhere:
                await fetch(sources, f"oci://{host}/team/adapter:v1", into, login)
                assert content(into) == GOOD
                return
            with pytest.raises(SourceError) as caught:
                await fetch(sources, f"oci://{host}/team/adapter:v1", into, login)
    assert caught.value.reason is AdapterReason.SOURCE_FORBIDDEN
    assert [request.headers.get("Authorization") for request in other.requests] == [None]


@pytest.mark.parametrize(
    ("uri", "revision"),
    [
        ("oci://", None),
        ("oci://registry.test", None),
        ("oci://registry.test/UPPER:v1", None),
        ("oci://registry.test/a/../b:v1", None),
        ("oci://registry.test/a:v1?x=y", None),
        ("oci://me:pw@registry.test/a:v1", None),
        ("oci://registry.test/a", "../../x"),
        ("oci://registry.test/a@md5:00", None),
    ],
)
async def test_reference_that_is_none(uri: str, revision: str | None, tmp_path: Path) -> None:
    async with Sources(settings(tmp_path / "scratch")) as sources:
        with pytest.raises(SourceError, match="oci://REGISTRY") as caught:
            await fetch(sources, uri, tmp_path, revision=revision)
    assert caught.value.reason is AdapterReason.INVALID_SOURCE
