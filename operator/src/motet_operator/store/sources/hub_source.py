"""`hf://org/name[@revision]`: a model repository of the Hugging Face hub, pinned to a commit.

huggingface_hub says where files are (`hf_hub_url`), how to ask (`build_hf_headers`) and what an answer means
(`ModelInfo`). It does not carry the bytes: its own client follows redirects to any address and reads answers of any
size, so requests go through `HttpClient`, to the same URLs. The hub sends weights on to its content network; the token
stays with the hub, and the network must be a public one.
"""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from urllib.parse import quote

from huggingface_hub import ModelInfo, hf_hub_url
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._validators import validate_repo_id
from yarl import URL

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import Credentials, Listing, RemoteFile, SourceError, SourceRef
from motet_operator.store.sources.file_names import listing as list_files
from motet_operator.store.sources.http_client import HttpClient
from motet_operator.store.sources.transfer import transfer

_MAX_INFO_BYTES: Final = 4 << 20
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_LIBRARY: Final = "motet"


class HubSource:
    """The hub at `endpoint`."""

    def __init__(self, client: HttpClient, endpoint: str) -> None:
        self._client = client
        self._endpoint = endpoint.rstrip("/")

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        """The files at the commit that the revision means now. Raises: SourceError."""
        repository, revision = _parse(ref)
        url = URL(
            f"{self._endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true", encoded=True
        )
        body = await self._client.document(url, _MAX_INFO_BYTES, secret=_headers(credentials))
        try:
            info = ModelInfo(**json.loads(body))  # type: ignore[no-untyped-call] # the library leaves it untyped
            commit = info.sha
            files = [
                RemoteFile(
                    sibling.rfilename,
                    sibling.size,
                    str(sibling.lfs.sha256 if sibling.lfs else sibling.blob_id),
                    sibling.lfs.sha256 if sibling.lfs else None,
                )
                for sibling in info.siblings or []
            ]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SourceError(AdapterReason.FETCH_FAILED, f"the hub's answer about {repository} is none") from error
        if commit is None or not _COMMIT.fullmatch(commit):
            raise SourceError(AdapterReason.FETCH_FAILED, f"the hub names no commit of {repository}")
        return list_files(files, self._client.limits, f"hf://{repository}@{revision}", commit)

    async def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of one file at the listing's commit. Raises: SourceError."""
        repository, _ = _parse(ref)
        url = URL(hf_hub_url(repository, file.name, revision=listing.revision, endpoint=self._endpoint), encoded=True)
        async with aclosing(transfer(self._client, url, file, offset, None, secret=_headers(credentials))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, listing: Listing) -> None:
        """Nothing is kept."""


def _parse(ref: SourceRef) -> tuple[str, str]:
    """Repository and revision; a commit goes before the branch or tag that was found at it. Raises: SourceError."""
    repository, _, within = ref.uri.removeprefix("hf://").strip("/").partition("@")
    commit = ref.revision is not None and _COMMIT.fullmatch(ref.revision) is not None
    if within and ref.revision is not None and within != ref.revision and not commit:
        message = f"source.uri names the revision {within} and source.revision {ref.revision}: leave one of them out"
        raise SourceError(AdapterReason.INVALID_SOURCE, message)
    try:
        if repository.count("/") != 1:
            raise HFValidationError("one slash")
        validate_repo_id(repository)
    except HFValidationError as error:
        raise SourceError(AdapterReason.INVALID_SOURCE, f"{ref.uri!r}: write hf://ORGANISATION/NAME") from error
    return repository, (ref.revision if commit else within) or ref.revision or "main"


def _headers(credentials: Credentials) -> dict[str, str]:
    """What the hub's client sends; never a token of the store's own environment."""
    token = credentials.get("token", b"").decode("latin-1").strip()
    if not token.isprintable():
        raise SourceError(AdapterReason.SOURCE_FORBIDDEN, "the token of source.secretRef is no single line of text")
    return build_hf_headers(token=token or False, library_name=_LIBRARY)
