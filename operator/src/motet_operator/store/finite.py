"""Whether weights are numbers: no NaN and no infinity, looked at piece by piece over a mapped file."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from motet_api.artifact.errors import ArtifactError
from motet_api.artifact.safetensors_header import DTYPE_BYTES, TensorInfo
from motet_api.reasons import AdapterReason

_ELEMENTS: Final = 1 << 20
_BF16_EXPONENT: Final = 0x7F80
_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


def check_finite(name: str, data: memoryview, tensors: Mapping[str, TensorInfo]) -> None:
    """Every weight of every tensor must be finite. `name` is the file's, for messages.

    Raises:
        ArtifactError: one is not; names the tensor.
    """
    for key, tensor in tensors.items():
        size = DTYPE_BYTES[tensor.dtype]
        for begin in range(tensor.begin, tensor.begin + tensor.nbytes, _ELEMENTS * size):
            end = min(begin + _ELEMENTS * size, tensor.begin + tensor.nbytes)
            values = np.frombuffer(data[begin:end], dtype=_TYPES[tensor.dtype])
            if not _all_finite(values, tensor.dtype):
                message = f"{name}: {key} holds weights that are NaN or infinite"
                raise ArtifactError(AdapterReason.CORRUPT_WEIGHTS, message)


def _all_finite(values: NDArray[Any], dtype: str) -> bool:
    if dtype == "BF16":
        # numpy knows no bfloat16; all ones in the exponent is NaN or infinity.
        return not bool(np.any((values & np.uint16(_BF16_EXPONENT)) == _BF16_EXPONENT))
    return bool(np.isfinite(values).all())
