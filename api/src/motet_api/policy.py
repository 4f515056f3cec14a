"""The installation's policy: what each namespace may use. One document, read by the operator and by the store.

It is the administrator's (chart value `policy`), not the namespace's own.
"""

import ipaddress
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel


class _PolicyModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class SignaturePolicy(_PolicyModel):
    """Adapters must carry a signature that one of these keys made (PEM, Ed25519 or ECDSA)."""

    public_keys: Annotated[list[str], Field(min_length=1, max_length=32)]


class NamespacePolicy(_PolicyModel):
    """What one namespace may use. A source is allowed if a pattern fits its whole URI; `*` fits anything, `/` too."""

    allowed_sources: list[str] = ["*"]
    max_adapters: Annotated[int | None, Field(ge=0)] = None
    max_bytes: Annotated[int | None, Field(ge=0)] = None
    signature: SignaturePolicy | None = None

    def allows(self, uri: str) -> bool:
        """Whether a source may be used."""
        return any(fnmatchcase(uri, pattern) for pattern in self.allowed_sources)


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
