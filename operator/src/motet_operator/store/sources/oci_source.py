"""`oci://registry/repository[:tag|@sha256:...]`: an artifact whose layers are files, or tars of files.

oras reads references and challenges; manifests and blobs are fetched by `HttpClient`, because oras reads whole answers
into memory, cannot resume, and follows redirects anywhere. Manifests and blobs are what their digests say, or an error.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final

from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import (
    Credentials,
    Listing,
    RemoteFile,
    SourceChangedError,
    SourceError,
    SourceRef,
)
from motet_operator.store.sources.file_names import check_sizes, common_folder, is_plain
from motet_operator.store.sources.file_names import listing as list_files
from motet_operator.store.sources.http_client import HttpClient
from motet_operator.store.sources.oci_access import access, base_url
from motet_operator.store.sources.oci_manifest import (
    MANIFEST_TYPES,
    Layer,
    OciRef,
    digest_of,
    parse_reference,
    read_layers,
)
from motet_operator.store.sources.transfer import transfer
from motet_operator.store.sources.unpacked import Package, Unpacked

_MAX_MANIFEST_BYTES: Final = 1 << 20
_BLOB: Final = "blob:"
_IN_ARCHIVE: Final = "layer:"


class OciSource:
    """`plain` are the registries (host:port) that are asked over http."""

    def __init__(self, client: HttpClient, unpacked: Unpacked, plain: frozenset[str]) -> None:
        self._client = client
        self._unpacked = unpacked
        self._plain = plain

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        """The artifact's files, pinned by the manifest's digest. Raises: SourceError."""
        oci = parse_reference(ref)
        base = base_url(oci, self._plain)
        secret = await access(self._client, oci, base, credentials)
        revision, layers = await self._layers(oci, base, secret)
        named = [layer for layer in layers if layer.packing is None and layer.path]
        blobs = [RemoteFile(layer.path, layer.size, _BLOB + layer.digest, layer.digest[7:]) for layer in named]
        check_sizes((RemoteFile(layer.path, layer.size, "") for layer in layers), self._client.limits, ref.uri)
        files = _flat(blobs)
        held: list[Package] = []
        try:
            for layer in layers:
                if layer.packing is not None:
                    held.append(await self._unpack(layer, base, secret))
                    files += held[-1].files
            listed = list_files(files, self._client.limits, ref.uri, revision)
        except BaseException:
            await self._release(held)
            raise
        served = {file.identity for file in listed.files}
        await self._release([one for one in held if _IN_ARCHIVE + one.sha256 not in served])
        return listed

    async def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of one file. Raises: SourceError."""
        oci = parse_reference(ref)
        base = base_url(oci, self._plain)
        if file.identity.startswith(_BLOB):
            secret = await access(self._client, oci, base, credentials)
            blob = file.identity.removeprefix(_BLOB)
            async with aclosing(self._blob(base, blob, file, offset, secret)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        archive = file.identity.removeprefix(_IN_ARCHIVE)
        if not self._unpacked.has(archive):
            await self.list(SourceRef(ref.uri, listing.revision), credentials)
        async with aclosing(self._unpacked.read(archive, file, offset)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, listing: Listing) -> None:
        """Drop what was unpacked."""
        for archive in {file.identity for file in listing.files if file.identity.startswith(_IN_ARCHIVE)}:
            await self._unpacked.release(archive.removeprefix(_IN_ARCHIVE))

    async def _release(self, packages: Iterable[Package]) -> None:
        for package in packages:
            await self._unpacked.release(package.sha256)

    async def _layers(self, oci: OciRef, base: URL, secret: dict[str, str]) -> tuple[str, tuple[Layer, ...]]:
        """The manifest's digest and layers; an index of one manifest is followed once."""
        found: tuple[Layer, ...] | str = oci.version
        digest = ""
        for _ in range(2):
            if not isinstance(found, str):
                break
            url = base / "manifests" / found
            accept = {"Accept": ", ".join(MANIFEST_TYPES)}
            body = await self._client.document(url, _MAX_MANIFEST_BYTES, headers=accept, secret=secret)
            digest = digest_of(body)
            if ":" in found and digest != found:
                message = f"{oci.registry} sends the manifest {digest} for {found}"
                raise SourceError(AdapterReason.DIGEST_MISMATCH, message)
            found = read_layers(body, self._client.limits.max_files)
        if isinstance(found, str):
            raise SourceError(AdapterReason.INVALID_SOURCE, "the reference names an index of an index")
        return digest, found

    async def _unpack(self, layer: Layer, base: URL, secret: dict[str, str]) -> Package:
        assert layer.packing is not None
        whole = RemoteFile(layer.path or layer.digest, layer.size, "", layer.digest[7:])
        package = await self._unpacked.add(self._blob(base, layer.digest, whole, 0, secret), layer.packing)
        identity = _IN_ARCHIVE + package.sha256
        files = (RemoteFile(file.name, file.size, identity, file.sha256) for file in package.files)
        return Package(package.sha256, tuple(files))

    async def _blob(
        self, base: URL, digest: str, file: RemoteFile, offset: int, secret: dict[str, str]
    ) -> AsyncGenerator[bytes, None]:
        try:
            url = base / "blobs" / digest
            async with aclosing(transfer(self._client, url, file, offset, None, secret=secret)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except SourceChangedError as error:
            # A digest names its bytes for ever: another length is a lie of the manifest or of the registry.
            message = f"{file.name} is not as long as the artifact's manifest says"
            raise SourceError(AdapterReason.DIGEST_MISMATCH, message) from error


def _flat(files: list[RemoteFile]) -> list[RemoteFile]:
    """Files by their names alone, of the folder that holds the configuration (oras push keeps the path given)."""
    within = common_folder(file.name for file in files)
    inside = [file for file in files if file.name.startswith(within)]
    names = [(file, file.name.removeprefix(within)) for file in inside]
    return [RemoteFile(name, file.size, file.identity, file.sha256) for file, name in names if is_plain(name)]
