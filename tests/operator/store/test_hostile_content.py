"""Files that lie: each is refused with its reason, within bounds, and a good adapter beside it is served."""

import io
import json
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactState
from tests.operator.store.material import (
    BASE,
    FakeSources,
    Folder,
    adapter,
    config_bytes,
    digest_of,
    encoded,
    framed,
    safetensors_bytes,
    tensors_of,
)
from tests.operator.store.running import request, running

GOOD = adapter()
FIRST = next(iter(tensors_of()))
SPAN = 4 * 16 * 4


def weights(data: bytes) -> dict[str, bytes]:
    return GOOD | {ADAPTER_WEIGHTS_FILE: data}


def config(data: bytes) -> dict[str, bytes]:
    return GOOD | {ADAPTER_CONFIG_FILE: data}


def entry(dtype: str = "F32", shape: tuple[int, ...] = (4, 16), begin: int = 0, end: int = SPAN) -> dict[str, object]:
    return {FIRST: {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}}


def relabelled(**changes: object) -> dict[str, bytes]:
    return weights(safetensors_bytes(tensors_of(), entry(**changes)))  # type: ignore[arg-type]


def not_finite(value: float, dtype: str) -> dict[str, bytes]:
    tensors = tensors_of(dtype=dtype)
    values = np.ones((4, 16), np.float32)
    values[3, 15] = value
    return weights(safetensors_bytes(tensors | {FIRST: (dtype, encoded(values, dtype))}))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("adapter_model.bin", b"x" * 1000)
    return buffer.getvalue()


def narrow() -> dict[str, bytes]:
    return weights(safetensors_bytes(tensors_of(width=8)))


CORRUPT = AdapterReason.CORRUPT_WEIGHTS
CONFIG = AdapterReason.INVALID_CONFIG
UNSAFE = AdapterReason.UNSAFE_FORMAT
WHOLE = GOOD[ADAPTER_WEIGHTS_FILE]
NESTED = b"[" * 100_000 + b"]" * 100_000
HOSTILE_CONTENT: dict[str, tuple[Callable[[], dict[str, bytes]], AdapterReason]] = {
    "header longer than the file": (lambda: weights(struct.pack("<Q", 1 << 40) + b"{}"), CORRUPT),
    "header of all the file": (lambda: weights(struct.pack("<Q", len(WHOLE) - 8) + WHOLE[8:]), CORRUPT),
    "header that is not JSON": (lambda: weights(framed(b"not json", b"")), CORRUPT),
    "header that is a list": (lambda: weights(framed(b"[1]", b"")), CORRUPT),
    "header nested deeply": (lambda: weights(framed(NESTED, b"")), CORRUPT),
    "header nested below a tensor": (lambda: weights(framed(b'{"a": ' + b'{"a":' * 50_000, b"")), CORRUPT),
    "header of a million tensors": (
        lambda: weights(framed(json.dumps({str(n): n for n in range(1_000_000)}).encode(), b"")),
        CORRUPT,
    ),
    "empty file": (lambda: weights(b""), CORRUPT),
    "seven bytes": (lambda: weights(b"\0" * 7), CORRUPT),
    "tensors overlap": (lambda: relabelled(begin=SPAN, end=2 * SPAN), CORRUPT),
    "gap before a tensor": (
        lambda: weights(framed(json.dumps(entry(begin=4, end=4 + SPAN)).encode(), b"\0" * (SPAN + 4))),
        CORRUPT,
    ),
    "negative offsets": (lambda: relabelled(begin=-SPAN, end=0), CORRUPT),
    "offsets the wrong way round": (lambda: relabelled(begin=SPAN, end=0), CORRUPT),
    "offsets that are text": (lambda: relabelled(begin="0", end=str(SPAN)), CORRUPT),
    "huge product of the shape": (lambda: relabelled(shape=(1 << 40, 1 << 40)), CORRUPT),
    "shape of zero times huge": (lambda: relabelled(shape=(0, 1 << 60), end=0), CORRUPT),
    "number of many digits": (lambda: weights(framed(b'{"a": ' + b"9" * 100_000 + b"}", b"")), CORRUPT),
    "dtype of whole numbers": (lambda: relabelled(dtype="I32"), CORRUPT),
    "dtype that is a list": (lambda: relabelled(dtype=[]), CORRUPT),
    "dtype of half the bytes": (lambda: relabelled(dtype="F16"), CORRUPT),
    "key that is there twice": (lambda: weights(framed(b'{"a": 1, "a": 2}', b"")), CORRUPT),
    "NaN in f32": (lambda: not_finite(np.nan, "F32"), CORRUPT),
    "inf in f32": (lambda: not_finite(np.inf, "F32"), CORRUPT),
    "NaN in f16": (lambda: not_finite(np.nan, "F16"), CORRUPT),
    "inf in f16": (lambda: not_finite(np.inf, "F16"), CORRUPT),
    "NaN in bf16": (lambda: not_finite(np.nan, "BF16"), CORRUPT),
    "minus inf in bf16": (lambda: not_finite(-np.inf, "BF16"), CORRUPT),
    "NaN in f64": (lambda: not_finite(np.nan, "F64"), CORRUPT),
    "truncated": (lambda: weights(WHOLE[:-1]), CORRUPT),
    "padded": (lambda: weights(WHOLE + b"\0"), CORRUPT),
    "web page": (lambda: weights(b"<!doctype html><html>log in</html>" * 100), CORRUPT),
    "pickle named safetensors": (lambda: weights(b"\x80\x04\x95" + b"\xff" * 100), UNSAFE),
    "zip in disguise": (lambda: weights(zipped()), UNSAFE),
    "a tensor is missing": (lambda: weights(safetensors_bytes(dict(list(tensors_of().items())[1:]))), CORRUPT),
    "no tensors at all": (lambda: weights(framed(b"{}", b"")), AdapterReason.BASE_MISMATCH),
    "configuration is not JSON": (lambda: config(b"<html>"), CONFIG),
    "configuration is not text": (lambda: config(b"\xff\xfe\x00"), CONFIG),
    "configuration is empty": (lambda: config(b""), CONFIG),
    "configuration nested deeply": (lambda: config(NESTED), CONFIG),
    "configuration of a million modules": (lambda: config(config_bytes(target_modules=["q"] * 1_000_000)), CONFIG),
    "configuration of a hundred thousand modules": (
        lambda: config(config_bytes(target_modules=["q"] * 100_000)),
        CONFIG,
    ),
    "configuration that says it has 1 GiB": (lambda: config(config_bytes() + b" " * (1 << 20)), CONFIG),
    "modules by a regular expression without end": (
        lambda: config(config_bytes(target_modules=r"(.*.*.*.*.*.*)*(.*.*.*.*.*)*(q_proj|v_proj)!")),
        AdapterReason.BASE_MISMATCH,
    ),
    "modules by a broken regular expression": (lambda: config(config_bytes(target_modules="(q_proj")), CONFIG),
    "rank of zero": (lambda: config(config_bytes(r=0)), CONFIG),
    "negative rank": (lambda: config(config_bytes(r=-4)), CONFIG),
    "rank of a thousand millions": (lambda: config(config_bytes(r=10**9)), AdapterReason.BASE_MISMATCH),
    "rank that is text": (lambda: config(config_bytes(r="4")), CONFIG),
    "alpha beyond all numbers": (lambda: config(config_bytes(lora_alpha=float("inf"))), CONFIG),
    "unknown peft_type": (lambda: config(config_bytes(peft_type="SOMETHING")), AdapterReason.UNSUPPORTED),
    "DoRA": (lambda: config(config_bytes(use_dora=True)), AdapterReason.UNSUPPORTED),
}


async def test_each_is_refused_with_its_reason_and_the_good_one_beside_them_is_served(tmp_path: Path) -> None:
    folders = {f"bad{number}": Folder(make()) for number, (make, _) in enumerate(HOSTILE_CONTENT.values())}
    sent = sum(len(data) for folder in folders.values() for data in folder.files.values())
    async with running(tmp_path, FakeSources(good=Folder(GOOD), **folders), disk_bytes=256 << 20) as store:
        tracemalloc.start()
        began = time.process_time()
        await store.ask(*(request(uri, namespace=uri) for uri in folders))
        assert (await store.settled(request("good"))).state is ArtifactState.VERIFIED
        reports = [await store.settled(request(uri, namespace=uri)) for uri in folders]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        failures = dict(zip(HOSTILE_CONTENT, (report.failure for report in reports), strict=True))
        reasons = {name: failure and failure.reason for name, failure in failures.items()}
        assert reasons == {name: reason for name, (_, reason) in HOSTILE_CONTENT.items()}
        assert all(failure and len(failure.message) < 3000 for failure in failures.values())
        assert peak < 64 << 20
        assert time.process_time() - began < 30
        assert store.store.blobs.disk.used <= sent + sum(map(len, GOOD.values()))
        assert list((tmp_path / "partial").iterdir()) == []
        assert set(store.store.catalogue.artifacts) == {digest_of(GOOD)}


@pytest.mark.parametrize(
    ("file", "size", "reason"),
    [
        (ADAPTER_CONFIG_FILE, 1 << 30, AdapterReason.INVALID_CONFIG),
        (ADAPTER_WEIGHTS_FILE, 1 << 50, AdapterReason.TOO_LARGE),
        (ADAPTER_WEIGHTS_FILE, 1 << 29, AdapterReason.STORE_FULL),
        (ADAPTER_WEIGHTS_FILE, 1 << 20, AdapterReason.FETCH_FAILED),
        (ADAPTER_WEIGHTS_FILE, 100, AdapterReason.FETCH_FAILED),
    ],
)
async def test_a_size_that_is_only_claimed(tmp_path: Path, file: str, size: int, reason: AdapterReason) -> None:
    folder = Folder(GOOD, claims={file: size})
    async with running(tmp_path, FakeSources(bad=folder, good=Folder(GOOD)), disk_bytes=16 << 20) as store:
        report = await store.settled(request("bad"))
        assert report.failure is not None
        assert report.failure.reason is reason, report.failure
        assert store.store.blobs.disk.used < 1 << 20
        assert (await store.settled(request("good"))).state is ArtifactState.VERIFIED


async def test_shapes_of_another_base_are_a_mismatch(tmp_path: Path) -> None:
    async with running(tmp_path, FakeSources(bad=Folder(narrow()))) as store:
        await store.put_base(BASE)
        wanted = request("bad", base_digest=BASE.digest())
        report = await store.settled(wanted, lambda report: report.compatible is not None)
        assert report.mismatch is not None
        assert report.mismatch.reason is AdapterReason.BASE_MISMATCH


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
async def test_every_dtype_that_is_served_is_taken(dtype: str, tmp_path: Path) -> None:
    files = weights(safetensors_bytes(tensors_of(dtype=dtype)))
    async with running(tmp_path, FakeSources(good=Folder(files))) as store:
        assert (await store.settled(request())).digest == digest_of(files)
