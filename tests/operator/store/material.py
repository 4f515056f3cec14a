"""Adapters and bases as bytes, good ones and bad ones, and a source that is told what to hold."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Digest, files_digest
from motet_api.reasons import AdapterReason
from motet_api.wire import BaseDescription
from motet_operator.store.sources.contract import (
    Credentials,
    Listing,
    RemoteFile,
    Source,
    SourceChangedError,
    SourceError,
    SourceRef,
)

HIDDEN = 16
MODULES = ("q_proj", "v_proj")
BASE = BaseDescription(
    model="tiny",
    hidden_size=HIDDEN,
    dtype_bytes=2,
    modules={f"model.layers.{layer}.self_attn.{name}": (HIDDEN, HIDDEN) for layer in (0, 1) for name in MODULES},
)
OTHER_BASE = BASE.model_copy(update={"modules": dict.fromkeys(BASE.modules, (HIDDEN * 2, HIDDEN))})
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": list(MODULES)}


def config_bytes(**fields: Any) -> bytes:
    return json.dumps(CONFIG | fields).encode()


def tensors_of(rank: int = 4, width: int = HIDDEN, dtype: str = "F32", seed: int = 0) -> dict[str, tuple[str, Any]]:
    """(dtype name, array) of every low-rank weight."""
    random = np.random.default_rng(seed)
    tensors = {}
    for module in BASE.modules:
        for part, shape in (("A", (rank, width)), ("B", (width, rank))):
            values = random.normal(size=shape).astype(np.float32)
            tensors[f"base_model.model.{module}.lora_{part}.weight"] = (dtype, encoded(values, dtype))
    return tensors


def encoded(values: Any, dtype: str) -> Any:
    match dtype:
        case "BF16":
            return (values.view(np.uint32) >> 16).astype("<u2")
        case "F16":
            return values.astype("<f2")
        case "F64":
            return values.astype("<f8")
        case _:
            return values.astype("<f4")


def safetensors_bytes(tensors: Mapping[str, tuple[str, Any]], header: Mapping[str, Any] | None = None) -> bytes:
    """A file with these tensors; `header` is laid over the true one (None removes an entry)."""
    document: dict[str, Any] = {}
    data = b""
    for name, (dtype, values) in tensors.items():
        raw = values.tobytes()
        document[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    document |= header or {}
    return framed(json.dumps({key: value for key, value in document.items() if value is not None}).encode(), data)


def framed(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def adapter(seed: int = 0, **fields: Any) -> dict[str, bytes]:
    """The two files of a good adapter."""
    rank = fields.get("r", 4)
    return {
        ADAPTER_CONFIG_FILE: config_bytes(**fields),
        ADAPTER_WEIGHTS_FILE: safetensors_bytes(tensors_of(rank, seed=seed)),
    }


def base_model() -> dict[str, bytes]:
    """The files of a small base in two parts."""
    parts = {
        "model-00001-of-00002.safetensors": {"a.weight": ("F32", np.ones((2, 2), "<f4"))},
        "model-00002-of-00002.safetensors": {"b.ids": ("I64", np.arange(4, dtype="<i8"))},
    }
    index = {"weight_map": {name: file for file, tensors in parts.items() for name in tensors}}
    return {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors.index.json": json.dumps(index).encode(),
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        **{name: safetensors_bytes(tensors) for name, tensors in parts.items()},
    }


def digest_of(files: Mapping[str, bytes]) -> Digest:
    return files_digest({name: sha256(data).hexdigest() for name, data in files.items()})


@dataclass
class Folder:
    """One remote folder: `files` by name, and how it misbehaves.

    `break_after`: bytes of each read after which the connection is lost. `gate` holds up every listing.
    `claims`: sizes that it says some files have, whatever they have.
    """

    files: dict[str, bytes]
    passed_over: tuple[str, ...] = ()
    secret: bytes = b""
    error: SourceError | None = None
    break_after: int | None = None
    says_size: bool = True
    resumes: bool = True
    claims: Mapping[str, int] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    reads: list[tuple[str, int]] = field(default_factory=list)
    lists: int = 0
    s3_endpoints: tuple[str, ...] = ()
    released: int = 0


class FakeSources:
    """Folders by URI; anything else is not found."""

    def __init__(self, **folders: Folder) -> None:
        self.folders = {f"https://host/{name}": folder for name, folder in folders.items()}

    def open_source(self, uri: str) -> Source:
        return _FakeSource(self)


class _FakeSource:
    def __init__(self, sources: FakeSources) -> None:
        self._sources = sources

    def _folder(self, ref: SourceRef, credentials: Credentials) -> Folder:
        folder = self._sources.folders.get(ref.uri)
        if folder is None:
            raise SourceError(AdapterReason.SOURCE_NOT_FOUND, f"{ref.uri} does not exist")
        if folder.secret and credentials.get("token") != folder.secret:
            raise SourceError(AdapterReason.SOURCE_FORBIDDEN, f"{ref.uri} answered 403")
        return folder

    async def list(self, ref: SourceRef, credentials: Credentials) -> Listing:
        folder = self._folder(ref, credentials)
        folder.lists += 1
        folder.s3_endpoints = ref.s3_endpoints
        if folder.gate is not None:
            await folder.gate.wait()
        if folder.error is not None:
            raise folder.error
        files = tuple(
            RemoteFile(name, folder.claims.get(name, len(data)) if folder.says_size else None, sha256(data).hexdigest())
            for name, data in sorted(folder.files.items())
        )
        revision = sha256("".join(f"{file.name}{file.identity}" for file in files).encode()).hexdigest()
        return Listing(f"rev-{revision[:8]}", files, folder.passed_over)

    async def read(
        self, ref: SourceRef, listing: Listing, file: RemoteFile, offset: int, credentials: Credentials
    ) -> AsyncIterator[bytes]:
        folder = self._folder(ref, credentials)
        folder.reads.append((file.name, offset))
        data = folder.files[file.name]
        if sha256(data).hexdigest() != file.identity or (offset and not folder.resumes):
            raise SourceChangedError(f"{file.name} has changed since it was listed")
        end = len(data) if folder.break_after is None else min(len(data), offset + folder.break_after)
        for start in range(offset, end, 1 << 16):
            await asyncio.sleep(0)
            yield data[start : min(start + (1 << 16), end)]
        if end < len(data):
            raise SourceError(AdapterReason.FETCH_FAILED, "the connection was lost")

    async def release(self, listing: Listing) -> None:
        for folder in self._sources.folders.values():
            folder.released += 1
