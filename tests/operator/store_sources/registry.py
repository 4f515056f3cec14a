"""Pieces of OCI artifacts, as a pusher makes them."""

import hashlib
import json

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"
BLOB_TYPE = "application/octet-stream"


def blob_digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(title: str, data: bytes, media_type: str = BLOB_TYPE) -> dict[str, object]:
    notes = {TITLE: title} if title else {}
    return {"mediaType": media_type, "digest": blob_digest(data), "size": len(data), "annotations": notes}


def manifest(*layers: dict[str, object]) -> bytes:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": blob_digest(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}
    return json.dumps(document).encode()
