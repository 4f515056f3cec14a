"""The header of a safetensors file, checked before a byte of weights is touched.

Format: 8 bytes little-endian header length, a JSON header, then the data; every tensor names its dtype, shape and
offsets into the data (github.com/huggingface/safetensors, "Format").
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from motet_api.artifact.errors import ArtifactError
from motet_api.reasons import AdapterReason

_MAX_HEADER: Final = 16 << 20
_MAX_TENSORS: Final = 60_000
_MAX_BRACKETS: Final = 4 * _MAX_TENSORS
"""Each tensor's entry has three. Counted before the JSON is read, since a bracket can cost sixty times its size."""
_MAX_COMMAS: Final = 20 * _MAX_TENSORS
_MAX_NAME: Final = 512
_MAX_DIMENSIONS: Final = 8
_MAX_SIDE: Final = 1 << 40
_METADATA: Final = "__metadata__"
DTYPE_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of an element, by the name of its dtype in a header: what an adapter's weights may be."""
BASE_DTYPE_BYTES: Final = DTYPE_BYTES | {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16"), 2),
    **dict.fromkeys(("U32", "I32"), 4),
    **dict.fromkeys(("U64", "I64", "C64"), 8),
}
"""The same for a base model, which may be quantised and have buffers."""
_PICKLE_OR_ZIP: Final = (b"\x80", b"PK\x03\x04")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it: `nbytes` bytes from byte `begin` of the file on."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself: its tensors by name, in the header's order, free text, and where the data begins."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    data_begin: int


def read_header(name: str, data: memoryview, dtype_bytes: Mapping[str, int] = DTYPE_BYTES) -> Header:
    """The header of the file whose bytes are `data`; `name` is for messages. Only the header is copied.

    `dtype_bytes`: which dtypes there may be, with the bytes of an element.

    Raises:
        ArtifactError: a pickle in disguise, a truncated file, or a header that does not fit the data.
    """
    prefix = bytes(data[:8])
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(_MAX_HEADER, len(data) - 8):
        if prefix.startswith(_PICKLE_OR_ZIP):
            raise ArtifactError(AdapterReason.UNSAFE_FORMAT, f"{name} is a pickle, not safetensors: save it anew")
        raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, f"{name} is truncated or not safetensors")
    begin = 8 + length
    text = bytes(data[8:begin])
    if text.count(b"[") + text.count(b"{") > _MAX_BRACKETS or text.count(b",") > _MAX_COMMAS:
        raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, f"{name} has more than {_MAX_TENSORS} tensors")
    try:
        document = json.loads(text, object_pairs_hook=_unique)
        metadata = dict(document.pop(_METADATA, None) or {})
        tensors = {key: _tensor(key, entry, begin, dtype_bytes) for key, entry in document.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, f"{name}: the header cannot be read: {error}") from error
    _check_spans(name, tensors, begin, len(data))
    return Header(tensors, metadata, begin)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: other readers might take the first of two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _tensor(name: str, entry: dict[str, Any], data_begin: int, dtype_bytes: Mapping[str, int]) -> TensorInfo:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if len(name) > _MAX_NAME or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{name[:40]} has a longer name or more dimensions than any weight")
    if dtype not in dtype_bytes:
        raise ValueError(f"{name} has dtype {dtype}; floating point is needed ({', '.join(dtype_bytes)})")
    if not all(type(number) is int for number in (*shape, begin, end)):
        raise ValueError(f"{name} has a shape or offsets that are not whole numbers")
    nbytes = math.prod(shape) * dtype_bytes[dtype]
    if min((*shape, begin), default=1) < 0 or max((*shape, end)) > _MAX_SIDE or end - begin != nbytes:
        raise ValueError(f"{name} of shape {list(shape)} does not fit its {end - begin} bytes")
    return TensorInfo(dtype, shape, data_begin + begin, nbytes)


def _check_spans(file: str, tensors: Mapping[str, TensorInfo], data_begin: int, size: int) -> None:
    position = data_begin
    for begin, nbytes in sorted((tensor.begin, tensor.nbytes) for tensor in tensors.values()):
        if begin != position:
            message = f"{file}: tensors overlap or leave a gap at byte {position - data_begin}"
            raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, message)
        position += nbytes
    if position != size:
        message = (
            f"{file} is truncated or padded: the header describes {position - data_begin} bytes of weights, the file"
            f" has {size - data_begin}"
        )
        raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, message)
