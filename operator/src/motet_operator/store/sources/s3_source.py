"""`s3://bucket/folder`: the objects below a prefix, at AWS or at any S3-compatible endpoint.

boto3 signs and builds the requests (as presigned URLs: signature 4, addressing style, regions) and botocore's parser
reads the listing. The requests themselves go through `HttpClient`, because the endpoint comes from a tenant's Secret,
and boto3's own connections know no rule about addresses. Whoever holds no keys asks without a signature.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus, urlsplit

import boto3.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.parsers import ResponseParserError, create_parser
from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import Credentials, Listing, RemoteFile, SourceError, SourceRef
from motet_operator.store.sources.file_names import listing as list_files
from motet_operator.store.sources.file_names import too_large
from motet_operator.store.sources.http_client import HttpClient
from motet_operator.store.sources.s3_endpoint import check_endpoint
from motet_operator.store.sources.s3_refusal import MAX_REFUSAL_BYTES, REFUSALS, refusal
from motet_operator.store.sources.transfer import transfer

_MAX_PAGE_BYTES: Final = 2 << 20
_MAX_PAGE_TAGS: Final = 1 << 16
"""A page of a thousand objects has about twenty thousand; each costs the parser some hundred bytes."""
_MOST_PAGES: Final = 10
_VALID_SECONDS: Final = 3600
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class _Place:
    """What the URI names. `prefix` ends with a slash, or is empty."""

    bucket: str
    prefix: str


class S3Source:
    """Objects are pinned by their ETag: a read asks for it by If-Match."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._session = boto3.session.Session()
        self._making = asyncio.Lock()

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        """The objects directly below the prefix. Raises: SourceError."""
        place = _parse(ref)
        s3 = await self._s3(ref, credentials)
        files: list[RemoteFile] = []
        token: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._page(s3, place, token)
            encoded = page.get("EncodingType") == "url"
            try:
                found = [_file(entry, place, encoded) for entry in page.get("Contents", [])]
            except (KeyError, AttributeError, TypeError) as error:
                raise _no_listing(place) from error
            files += [file for file in found if file is not None]
            token = page.get("NextContinuationToken")
            if not token:
                return list_files(files, self._client.limits, ref.uri)
        raise too_large(f"{ref.uri} has more than {_MOST_PAGES} pages of objects", _MOST_PAGES)

    async def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of one object. Raises: SourceError."""
        place = _parse(ref)
        s3 = await self._s3(ref, credentials)
        url = _presigned(s3, "get_object", {"Bucket": place.bucket, "Key": place.prefix + file.name})
        wanted = {"If-Match": f'"{file.identity}"'}
        async with aclosing(transfer(self._client, url, file, offset, _identity, wanted)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, listing: Listing) -> None:
        """Nothing is kept."""

    async def _page(self, s3: Any, place: _Place, token: str | None) -> Mapping[str, Any]:
        asked = {"Bucket": place.bucket, "Prefix": place.prefix, "Delimiter": "/", "EncodingType": "url"}
        url = _presigned(s3, "list_objects_v2", asked | ({"ContinuationToken": token} if token else {}))
        async with self._client.open(url, passing=REFUSALS) as response:
            most = MAX_REFUSAL_BYTES if response.status in REFUSALS else _MAX_PAGE_BYTES
            body = b"".join([chunk async for chunk in self._client.chunks(response, most)])
        if response.status in REFUSALS:
            raise refusal(response.status, body, place.bucket)
        # Declarations make a page larger than it is, and no listing has any; a zero byte would hide them (UTF-16).
        if b"<!" in body or b"\0" in body or body.count(b"<") > _MAX_PAGE_TAGS:
            raise _no_listing(place)
        operation = s3.meta.service_model.operation_model("ListObjectsV2")
        try:
            answer = {"status_code": 200, "headers": {}, "body": body}
            page: Mapping[str, Any] = create_parser("rest-xml").parse(answer, operation.output_shape)
        except (ResponseParserError, ValueError) as error:
            raise _no_listing(place) from error
        return page

    async def _s3(self, ref: SourceRef, credentials: Credentials) -> Any:
        """A client that signs with these keys; it never connects. Making one is slow and not safe in two threads."""
        async with self._making:
            s3 = await asyncio.to_thread(self._make, credentials)
        check_endpoint(
            s3.meta.endpoint_url, "endpoint" in credentials, self._partition(s3.meta.region_name), ref.s3_endpoints
        )
        return s3

    def _partition(self, region: str) -> str:
        """AWS's partition of a region; empty for the regions of others."""
        try:
            return str(self._session.get_partition_for_region(region))
        except BotoCoreError:
            return ""

    def _make(self, credentials: Credentials) -> Any:
        given = {key: value.decode("latin-1").strip() for key, value in credentials.items()}
        keys = given.get("accessKeyId"), given.get("secretAccessKey")
        if bool(keys[0]) != bool(keys[1]):
            message = "the Secret of source.secretRef must hold accessKeyId and secretAccessKey, both or neither"
            raise SourceError(AdapterReason.SOURCE_FORBIDDEN, message)
        endpoint = given.get("endpoint") or None
        try:
            return self._session.client(
                "s3",
                region_name=given.get("region") or "us-east-1",
                endpoint_url=endpoint,
                aws_access_key_id=keys[0] or None,
                aws_secret_access_key=keys[1] or None,
                aws_session_token=given.get("sessionToken") or None,
                config=Config(
                    signature_version="s3v4" if keys[0] else UNSIGNED,
                    s3={"addressing_style": "path" if endpoint else "virtual"},
                    ignore_configured_endpoint_urls=True,
                ),
            )
        except (BotoCoreError, ValueError) as error:
            message = f"the Secret's endpoint or region is none ({type(error).__name__}): endpoint is http(s)://host"
            raise SourceError(AdapterReason.INVALID_SOURCE, message) from error


def _parse(ref: SourceRef) -> _Place:
    """Raises: SourceError."""
    if ref.revision is not None:
        message = "source.revision means nothing for s3: remove it; objects are pinned by their ETags"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)
    parts = urlsplit(ref.uri)
    if not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise SourceError(AdapterReason.INVALID_SOURCE, f"{ref.uri!r}: write s3://BUCKET/folder")
    folder = parts.path.strip("/")
    return _Place(parts.netloc, f"{folder}/" if folder else "")


def _presigned(s3: Any, operation: str, parameters: Mapping[str, str]) -> URL:
    try:
        return URL(s3.generate_presigned_url(operation, Params=parameters, ExpiresIn=_VALID_SECONDS), encoded=True)
    except (BotoCoreError, ValueError) as error:
        raise SourceError(AdapterReason.INVALID_SOURCE, f"no request can be made ({type(error).__name__})") from error


def _no_listing(place: _Place) -> SourceError:
    message = f"s3://{place.bucket}: the endpoint's answer is no listing: is `endpoint` of the Secret right?"
    return SourceError(AdapterReason.INVALID_SOURCE, message)


def _file(entry: Mapping[str, Any], place: _Place, encoded: bool) -> RemoteFile | None:
    """An object as a file; None for the folder's own marker. Not every server encodes names when it is asked to."""
    key = unquote_plus(entry["Key"]) if encoded else entry["Key"]
    name = key.removeprefix(place.prefix)
    return RemoteFile(name, entry["Size"], entry["ETag"].strip('"')) if name else None


def _identity(headers: Mapping[str, str]) -> str | None:
    return headers["ETag"].strip('"') if "ETag" in headers else None
