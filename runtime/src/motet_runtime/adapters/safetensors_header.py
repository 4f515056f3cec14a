"""The header of a safetensors file, checked before a byte of weights is touched.

Format: 8 bytes little-endian header length, a JSON header, then the data; every tensor names its dtype, shape and
offsets into the data (github.com/huggingface/safetensors, "Format").
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from motet_api.reasons import AdapterReason
from motet_runtime.errors import AdapterError

_MAX_HEADER: Final = 64 << 20
_DTYPE_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_PICKLE_OR_ZIP: Final = (b"\x80", b"PK\x03\x04")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file by name.

    Raises:
        AdapterError: a pickle in disguise, a truncated file, or a header that does not fit the data.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(_MAX_HEADER, size - 8):
            if prefix.startswith(_PICKLE_OR_ZIP):
                raise AdapterError(
                    AdapterReason.UNSAFE_FORMAT, f"{path.name} is a pickle, not safetensors: save it anew"
                )
            raise AdapterError(AdapterReason.CORRUPT_WEIGHTS, f"{path.name} is truncated or not safetensors")
        header = file.read(length)
    try:
        document = json.loads(header)
        tensors = {name: _tensor(name, entry) for name, entry in document.items() if name != "__metadata__"}
        spans = sorted(tuple(entry["data_offsets"]) for name, entry in document.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise AdapterError(AdapterReason.CORRUPT_WEIGHTS, f"{path.name}: the header cannot be read: {error}") from error
    _check_spans(path.name, spans, size - 8 - length)
    return tensors


def _tensor(name: str, entry: dict[str, Any]) -> TensorInfo:
    dtype = entry["dtype"]
    shape = tuple(int(extent) for extent in entry["shape"])
    begin, end = entry["data_offsets"]
    if dtype not in _DTYPE_BYTES:
        raise ValueError(f"{name} has dtype {dtype}; floating point is needed")
    nbytes = math.prod(shape) * _DTYPE_BYTES[dtype]
    if min(shape, default=1) < 0 or end - begin != nbytes:
        raise ValueError(f"{name} of shape {list(shape)} does not fit its {end - begin} bytes")
    return TensorInfo(dtype, shape, nbytes)


def _check_spans(file: str, spans: list[tuple[int, int]], data: int) -> None:
    position = 0
    for begin, end in spans:
        if begin != position:
            raise AdapterError(
                AdapterReason.CORRUPT_WEIGHTS, f"{file}: tensors overlap or leave a gap at byte {position}"
            )
        position = end
    if position != data:
        message = (
            f"{file} is truncated or padded: the header describes {position} bytes of weights, the file has {data}"
        )
        raise AdapterError(AdapterReason.CORRUPT_WEIGHTS, message)
