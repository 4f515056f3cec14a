"""One adapter in one file, in the form in which the engine multiplies by it; opened by mapping it, without a copy.

The file is a safetensors file: for each module that is changed `<module>.a`, A of shape (rank, in), and `<module>.b`,
(scale * B).T of shape (rank, out), both contiguous and in the dtype of the base, so that `y += (x @ a.T) @ b`. A
classification head follows PEFT's bias and weight as `head.weight` (labels, hidden) and `head.bias` (labels,), both
float32 and first in the file, which keeps every tensor at a multiple of its element's size. A CRC of the data stands in
the metadata: nothing is synced to the disk, so a file that outlived its node's power may hold holes.
"""

import json
import math
import mmap
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from motet_api.artifact.adapter import Artifact
from motet_api.artifact.safetensors_header import DTYPE_BYTES, TensorInfo, read_header
from motet_api.reasons import AdapterReason
from motet_runtime.adapters.artifact import VerifiedAdapter
from motet_runtime.errors import AdapterError

if TYPE_CHECKING:
    import torch

_FORMAT: Final = "motet-flat-1"
_TORCH_NAMES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_HEADER_UNIT: Final = 64
"""The data begins at a multiple of this, a cache line."""
_NO_CHECKSUM: Final = "checksum"
"""Stands where the eight digits of the checksum will, first of its kind in the header."""
_HEAD_WEIGHT: Final = "head.weight"
_HEAD_BIAS: Final = "head.bias"


@dataclass(frozen=True, slots=True)
class FlatHead:
    """A classification head in float32: `logits = h @ weight.T + bias`; weight (labels, hidden), bias (labels,)."""

    weight: "torch.Tensor"
    bias: "torch.Tensor | None"


@dataclass(frozen=True, slots=True)
class FlatAdapter:
    """An adapter's weights as views of a mapped file, which stays mapped (and on the disk) while one of them lives.

    `modules`: by module name, a (rank, in) and b = (scale * B).T (rank, out). `nbytes`: size of the data. Writing into
    a view changes this mapping only, not the file.
    """

    modules: Mapping[str, "tuple[torch.Tensor, torch.Tensor]"]
    head: FlatHead | None
    nbytes: int


def write_flat(file: FileIO, adapter: VerifiedAdapter, dtype: "torch.dtype") -> None:
    """Write an adapter's file, from its beginning on, one module at a time.

    The product scale * B is computed in float32 and rounded to `dtype` once.

    Raises:
        AdapterError: a weight is infinite or no number, in `dtype` if not before.
        OSError: the file cannot be written.
    """
    # The checksum is known last and has a fixed width: the header is written twice.
    header = _header(_layout(adapter.artifact, adapter.tensors, code_of(dtype)))
    _write(file, header)
    checksum = 0
    for block in _blocks(adapter, dtype):
        checksum = zlib.crc32(block, checksum)
        _write(file, block)
    file.seek(0)
    _write(file, header.replace(_NO_CHECKSUM.encode(), _hex(checksum).encode(), 1))


def open_flat(path: Path, *, check: bool) -> FlatAdapter:
    """Map a file; with `check`, compare its data with its checksum first (which reads all of it).

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not what `write_flat` wrote.
    """
    with path.open("rb") as file:
        # Private and writable: torch warns of read-only memory.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        header = read_header(path.name, memoryview(data))
    except AdapterError as error:
        raise ValueError(error.message) from error
    if header.metadata.get("format") != _FORMAT:
        raise ValueError(f"{path.name} has another format than {_FORMAT}")
    if check and header.metadata.get("crc32") != _hex(zlib.crc32(memoryview(data)[header.data_begin :])):
        raise ValueError(f"{path.name} does not match its checksum")
    tensors = {name: _tensor(data, tensor) for name, tensor in header.tensors.items()}
    weight, bias = tensors.pop(_HEAD_WEIGHT, None), tensors.pop(_HEAD_BIAS, None)
    modules = {
        name[:-2]: (tensor, tensors[f"{name[:-2]}.b"]) for name, tensor in tensors.items() if name.endswith(".a")
    }
    head = None if weight is None else FlatHead(weight, bias)
    return FlatAdapter(modules, head, len(data) - header.data_begin)


def code_of(dtype: "torch.dtype") -> str:
    """A dtype's name in a safetensors header.

    Raises:
        ValueError: weights are not kept in this dtype.
    """
    name = str(dtype).removeprefix("torch.")
    code = next((code for code in ("F32", "BF16", "F16") if _TORCH_NAMES[code] == name), None)
    if code is None:
        raise ValueError(f"weights are kept in float32, bfloat16 or float16, not in {name}")
    return code


def _layout(artifact: Artifact, tensors: Mapping[str, TensorInfo], code: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of each tensor, in order."""
    layout: list[tuple[str, str, tuple[int, ...]]] = []
    if artifact.head:
        layout.append((_HEAD_WEIGHT, "F32", tensors[artifact.head.weight_key].shape))
        if artifact.head.bias_key:
            layout.append((_HEAD_BIAS, "F32", tensors[artifact.head.bias_key].shape))
    for target in artifact.targets:
        layout.append((f"{target.name}.a", code, tensors[target.a_key].shape))
        layout.append((f"{target.name}.b", code, tensors[target.b_key].shape[::-1]))
    return layout


def _header(layout: list[tuple[str, str, tuple[int, ...]]]) -> bytes:
    document: dict[str, Any] = {"__metadata__": {"format": _FORMAT, "crc32": _NO_CHECKSUM}}
    end = 0
    for name, code, shape in layout:
        begin, end = end, end + math.prod(shape) * DTYPE_BYTES[code]
        document[name] = {"dtype": code, "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(document).encode()
    # The format allows spaces after the JSON.
    text += b" " * (-(8 + len(text)) % _HEADER_UNIT)
    return len(text).to_bytes(8, "little") + text


def _blocks(adapter: VerifiedAdapter, dtype: "torch.dtype") -> Iterator[memoryview]:
    """The data, in the layout's order; each block is valid until the next is asked for."""
    import torch

    artifact, source = adapter.artifact, adapter.tensors
    if head := artifact.head:
        for key in (head.weight_key, head.bias_key):
            if key:
                yield _finite_bytes(key, _tensor(adapter.data, source[key]).to(torch.float32))
    shapes = [(source[target.a_key].shape, source[target.b_key].shape[::-1]) for target in artifact.targets]
    # One block of memory for all: fresh pages cost more than the arithmetic.
    staging = torch.empty(max(math.prod(a) + math.prod(b) for a, b in shapes), dtype=dtype)
    places: dict[Any, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    for target, shape in zip(artifact.targets, shapes, strict=True):
        if shape not in places:
            split, end = math.prod(shape[0]), math.prod(shape[0]) + math.prod(shape[1])
            places[shape] = staging[:end], staging[:split].view(shape[0]), staging[split:end].view(shape[1])
        block, a, b = places[shape]
        a.copy_(_tensor(adapter.data, source[target.a_key]))
        torch.mul(_tensor(adapter.data, source[target.b_key]).T.to(torch.float32), target.scale, out=b)
        yield _finite_bytes(target.name, block)


def _finite_bytes(name: str, block: "torch.Tensor") -> memoryview:
    """The bytes of a contiguous tensor of which every element is finite."""
    import torch

    # A quarter of what isfinite costs; the extremes are nan where any element is.
    if block.numel() and not all(math.isfinite(extreme.item()) for extreme in torch.aminmax(block)):
        message = f"{name}: weights are not finite in {str(block.dtype).removeprefix('torch.')}"
        raise AdapterError(AdapterReason.CORRUPT_WEIGHTS, message)
    return block.view(torch.uint8).numpy().data


def _hex(checksum: int) -> str:
    return f"{checksum:08x}"


def _write(file: FileIO, block: bytes | memoryview) -> None:
    """A raw file may take less than it is given."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _tensor(data: memoryview | mmap.mmap, info: TensorInfo) -> "torch.Tensor":
    """A view of a file's bytes."""
    import torch

    dtype: torch.dtype = getattr(torch, _TORCH_NAMES[info.dtype])
    if not info.nbytes:
        return torch.empty(info.shape, dtype=dtype)
    count = info.nbytes // dtype.itemsize
    return torch.frombuffer(data, dtype=dtype, count=count, offset=info.begin).view(info.shape)
