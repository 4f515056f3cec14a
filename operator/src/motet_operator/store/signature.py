"""Detached signatures over an adapter's canonical manifest, by Ed25519 or ECDSA P-256 with SHA-256.

What `openssl pkeyutl -sign -rawin` (Ed25519), `openssl dgst -sha256 -sign` (ECDSA) and `cosign sign-blob --key` make of
the manifest, in base64.
"""

import base64
import binascii
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from motet_api.identity import SIGNATURE_FILE
from motet_api.reasons import AdapterReason
from motet_operator.store.errors import StoreError

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey


def read_key(pem: str) -> PublicKey:
    """A public key of the policy.

    Raises:
        ValueError: it is none that signatures are checked with.
    """
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"signature.publicKeys: not a public key in PEM form: {error}") from error
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError("signature.publicKeys: keys must be Ed25519 or ECDSA on P-256")


def check(signature: str, manifest: str, keys: Sequence[PublicKey]) -> None:
    """One of the keys must have signed the manifest.

    Raises:
        StoreError: there is no signature, or none of the keys made it.
    """
    if not signature.strip():
        message = (
            f"no {SIGNATURE_FILE} lies beside the files, and the installation's policy (chart value policy) wants one"
        )
        raise StoreError(AdapterReason.SIGNATURE_MISSING, message)
    try:
        raw = base64.b64decode("".join(signature.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise StoreError(AdapterReason.SIGNATURE_INVALID, f"{SIGNATURE_FILE} is not base64: {error}") from error
    if not any(_made_by(key, raw, manifest.encode()) for key in keys):
        message = f"{SIGNATURE_FILE} is no signature of these files by any of the policy's {len(keys)} keys"
        raise StoreError(AdapterReason.SIGNATURE_INVALID, message)


def _made_by(key: PublicKey, raw: bytes, manifest: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(raw, manifest)
        else:
            key.verify(raw, manifest, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
