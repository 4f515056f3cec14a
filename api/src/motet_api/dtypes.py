"""The types that weights are computed in. Apart from the objects, so that the engine need not import their schema."""

from enum import StrEnum


class DType(StrEnum):
    """The type the weights are computed in."""

    AUTO = "Auto"
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
