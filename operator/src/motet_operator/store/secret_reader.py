"""Credentials from Kubernetes Secrets: read when a job starts, forgotten when it ends, never logged.

Whoever writes adapters chooses the Secret and the host that it is sent to, and may not be allowed to read it. So only
Secrets are used that say of themselves, by a label, that they are for this, and none of a type that is for something
else: the tokens of service accounts above all.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, Protocol

from motet_api.names import CREDENTIALS_LABEL
from motet_api.reasons import AdapterReason
from motet_operator.errors import NotFoundError, OperatorError, RefusedError
from motet_operator.store.errors import StoreError
from motet_operator.store.sources.contract import Credentials

TYPES: Final = ("Opaque", "kubernetes.io/basic-auth", "kubernetes.io/dockerconfigjson")
"""Types of Secrets that are used."""


class PathReader(Protocol):
    """Reads what is at a path of the API server."""

    async def read(self, path: str) -> dict[str, Any]:
        """The object. Raises: OperatorError."""
        ...


class SecretReader(Protocol):
    """Reads a Secret's data."""

    async def read(self, namespace: str, name: str) -> Credentials:
        """The data. Raises: StoreError."""
        ...


class KubernetesSecrets:
    """Secrets of the cluster."""

    def __init__(self, cluster: PathReader) -> None:
        self._cluster = cluster

    async def read(self, namespace: str, name: str) -> Credentials:
        """The data of a Secret that is meant for sources. Raises: StoreError."""
        try:
            secret = await self._cluster.read(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        except NotFoundError as error:
            message = f"namespace {namespace} has no Secret {name}, which source.secretRef names"
            raise StoreError(AdapterReason.SECRET_NOT_FOUND, message) from error
        except RefusedError as error:
            message = (
                f"the store may not read Secret {name} of namespace {namespace}: the administrator of the installation"
                f" can list the namespace (chart value store.secretNamespaces)"
            )
            raise StoreError(AdapterReason.SECRET_NOT_FOUND, message) from error
        except OperatorError as error:
            raise StoreError(AdapterReason.FETCH_FAILED, f"Secret {name} cannot be read now: {error}") from error
        _check_meant(secret, namespace, name)
        return _decoded(secret.get("data") or {}, name)


class NoSecrets:
    """Where there is no cluster: nothing that needs credentials can be fetched."""

    async def read(self, namespace: str, name: str) -> Credentials:
        """Raises: StoreError."""
        message = f"this store runs without Kubernetes and cannot read Secret {name}"
        raise StoreError(AdapterReason.SECRET_NOT_FOUND, message)


def _check_meant(secret: Mapping[str, Any], namespace: str, name: str) -> None:
    kind = secret.get("type", "Opaque")
    if kind not in TYPES:
        message = (
            f"Secret {name} of namespace {namespace} has type {kind}, and is sent to no source: make one of type "
            f"{', '.join(TYPES[:-1])} or {TYPES[-1]}"
        )
        raise StoreError(AdapterReason.SECRET_NOT_FOUND, message)
    labels = secret.get("metadata", {}).get("labels") or {}
    if labels.get(CREDENTIALS_LABEL) != "true":
        message = (
            f"Secret {name} of namespace {namespace} does not say that it is for sources: whoever owns it can, with "
            f"kubectl label secret {name} -n {namespace} {CREDENTIALS_LABEL}=true"
        )
        raise StoreError(AdapterReason.SECRET_NOT_FOUND, message)


def _decoded(data: Mapping[str, str], name: str) -> Credentials:
    try:
        return {key: base64.b64decode(value, validate=True) for key, value in data.items()}
    except (binascii.Error, ValueError) as error:
        raise StoreError(AdapterReason.SECRET_NOT_FOUND, f"Secret {name} has data that is not base64") from error
