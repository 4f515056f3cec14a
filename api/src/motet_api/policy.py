"""The installation's policy: what each namespace may use. One document, read by the operator and by the store.

It is the administrator's (chart value `policy`), not the namespace's own.
"""

import ipaddress
import re
from fnmatch import fnmatchcase
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

CLIMBS: Final = "its path has a '..', which could lead out of what policy allows: write the path that is meant"
"""Why a source is refused for which `climbs` is true."""
_DROPPED: Final = re.compile(r"[\t\r\n]")
"""What readers of URIs take out of them."""
_SEPARATORS: Final = re.compile(r"[/\\?#;]")


def climbs(uri: str) -> bool:
    """Whether a URI has a `..` segment, in any spelling that somebody on its way may take for one."""
    while (plain := unquote(uri)) != uri:
        uri = plain
    return any(segment.strip() == ".." for segment in _SEPARATORS.split(_DROPPED.sub("", uri)))


class _PolicyModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class SignaturePolicy(_PolicyModel):
    """Adapters must carry a signature that one of these keys made (PEM, Ed25519 or ECDSA)."""

    public_keys: Annotated[list[str], Field(min_length=1, max_length=32)]


class NamespacePolicy(_PolicyModel):
    """What one namespace may use. A source is allowed if a pattern fits its whole URI; `*` fits anything, `/` too.

    `s3_endpoints` are patterns of the endpoints that a Secret may name for s3://. Without one that fits, a bucket is
    AWS's own, except where every source is allowed anyway.
    """

    allowed_sources: list[str] = ["*"]
    s3_endpoints: list[str] = []
    max_adapters: Annotated[int | None, Field(ge=0)] = None
    max_bytes: Annotated[int | None, Field(ge=0)] = None
    signature: SignaturePolicy | None = None

    def allows(self, uri: str) -> bool:
        """Whether a source may be used; none of which `climbs` is true."""
        return not climbs(uri) and any(fnmatchcase(uri, pattern) for pattern in self.allowed_sources)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Patterns of the S3 endpoints that a Secret may name."""
        return ("*",) if self.allowed_sources == ["*"] else tuple(self.s3_endpoints)


class Policy(_PolicyModel):
    """`namespaces` replace `default` whole. `private_networks` (CIDR) may be fetched from; other private, loopback and
    link-local addresses never are.
    """

    default: NamespacePolicy = NamespacePolicy()
    namespaces: dict[str, NamespacePolicy] = {}
    private_networks: list[str] = []

    @field_validator("private_networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    def of(self, namespace: str) -> NamespacePolicy:
        """What holds in a namespace."""
        return self.namespaces.get(namespace, self.default)
