"""From a URI to its source. Made once, with the installation's settings; entered while the store runs."""

from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.archive import packing_of
from motet_operator.store.sources.archive_source import ArchiveSource
from motet_operator.store.sources.contract import Boundless, Limits, Room, Source, SourceError
from motet_operator.store.sources.http_client import HttpClient
from motet_operator.store.sources.http_source import HttpSource
from motet_operator.store.sources.hub_source import HubSource
from motet_operator.store.sources.local_source import LocalSource
from motet_operator.store.sources.networks import AddressRule, Networks
from motet_operator.store.sources.oci_source import OciSource
from motet_operator.store.sources.s3_source import S3Source
from motet_operator.store.sources.unpacked import Unpacked

HUB: str = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What the installation decides.

    `scratch` is emptied at the start and holds archives while they are unpacked, as far as there is `room`. `networks`
    are those beside the public ones. `plain_http_registries` (host:port) are asked over http. Without `claims` there is
    no pvc://, without `roots` no file://.
    """

    scratch: Path
    limits: Limits = field(default_factory=Limits)
    room: Room = field(default_factory=Boundless)
    networks: AddressRule = field(default_factory=Networks)
    hub_endpoint: str = HUB
    plain_http_registries: frozenset[str] = frozenset()
    claims: Path | None = None
    roots: tuple[Path, ...] = ()


class Sources:
    """The sources by scheme. `resolver` looks names up; the system's does unless given."""

    def __init__(self, settings: SourceSettings, resolver: AbstractResolver | None = None) -> None:
        limits = settings.limits
        self._client = HttpClient(settings.networks, limits, resolver)
        self._unpacked = Unpacked(settings.scratch, limits, settings.room)
        self._archive = ArchiveSource(self._client, self._unpacked)
        folder = HttpSource(self._client)
        local = LocalSource(settings.claims, settings.roots, limits)
        self._schemes: dict[str, Source] = {
            "hf": HubSource(self._client, settings.hub_endpoint),
            "s3": S3Source(self._client),
            "oci": OciSource(self._client, self._unpacked, settings.plain_http_registries),
            "https": folder,
            "http": folder,
            "pvc": local,
            "file": local,
        }

    async def __aenter__(self) -> Self:
        self._unpacked.clear()
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def open_source(self, uri: str) -> Source:
        """The source that a URI is for. Raises: SourceError."""
        try:
            parts = urlsplit(uri)
        except ValueError as error:
            raise SourceError(AdapterReason.INVALID_SOURCE, "source.uri is no URI") from error
        if parts.scheme not in self._schemes:
            schemes = ", ".join(f"{scheme}://" for scheme in self._schemes)
            message = f"source.uri has the scheme {parts.scheme!r}; it must be one of {schemes}"
            raise SourceError(AdapterReason.INVALID_SOURCE, message)
        if parts.scheme in {"http", "https"} and packing_of(parts.path) is not None:
            return self._archive
        return self._schemes[parts.scheme]
