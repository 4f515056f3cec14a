"""`https://host/adapter.tar.gz` (or .tgz, .tar, .zip): one archive that holds the folder's files."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.archive import packing_of
from motet_operator.store.sources.contract import (
    Credentials,
    Listing,
    RemoteFile,
    SourceChangedError,
    SourceError,
    SourceRef,
)
from motet_operator.store.sources.file_names import listing as list_files
from motet_operator.store.sources.http_client import HttpClient, read_url, shown
from motet_operator.store.sources.http_source import authorization
from motet_operator.store.sources.transfer import transfer
from motet_operator.store.sources.unpacked import Unpacked, archive_of


class ArchiveSource:
    """Fetches the archive to list it. The pin is the archive's sha256, whatever the server says of it."""

    def __init__(self, client: HttpClient, unpacked: Unpacked) -> None:
        self._client = client
        self._unpacked = unpacked

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        """Fetch and unpack. Raises: SourceError."""
        url = read_url(ref.uri)
        packing = packing_of(url.path)
        if packing is None:
            raise SourceError(
                AdapterReason.INVALID_SOURCE, f"{shown(url)} ends in none of .tar, .tar.gz, .tgz and .zip"
            )
        if ref.revision is not None:
            raise SourceError(AdapterReason.INVALID_SOURCE, "source.revision means nothing for http(s): remove it")
        package = await self._unpacked.add(self._bytes(url, credentials), packing)
        try:
            return list_files(package.files, self._client.limits, shown(url), f"sha256:{package.sha256}")
        except SourceError:
            await self._unpacked.release(package.sha256)
            raise

    async def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of one file, from disk. Raises: SourceError."""
        sha256 = archive_of(listing)
        if not self._unpacked.has(sha256):
            again = await self.list(ref, credentials)
            if again.revision != listing.revision:
                await self.release(again)
                raise SourceChangedError(f"{shown(read_url(ref.uri))} has changed since it was listed")
        async with aclosing(self._unpacked.read(sha256, file, offset)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, listing: Listing) -> None:
        """Drop what was unpacked."""
        await self._unpacked.release(archive_of(listing))

    async def _bytes(self, url: URL, credentials: Credentials) -> AsyncGenerator[bytes, None]:
        whole = RemoteFile(url.name, None, "")
        async with aclosing(transfer(self._client, url, whole, 0, None, secret=authorization(credentials))) as chunks:
            async for chunk in chunks:
                yield chunk
