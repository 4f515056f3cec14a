"""Compiles the CPU kernels ahead of time, for images: `python -m motet_runtime.engine.precompile FOLDER`.

A pod whose image has them starts three CPU seconds sooner. They are for this processor, Python and numba; elsewhere,
and for other head sizes, a process compiles its own.
"""

import os
import sys
from typing import Final

HEAD_SIZES: Final = (64, 128)
"""Nearly every decoder's."""


def main() -> int:
    """Compile into the folder that the only argument names."""
    os.environ["NUMBA_CACHE_DIR"] = sys.argv[1]
    import numpy as np

    from motet_runtime.engine import kernels_cpu

    one, zero = np.ones(1, np.int32), np.zeros(1, np.int32)
    rows = np.zeros((1, 8), np.float32)
    # Called as the engine calls them: a kernel is compiled for the types that it is given.
    kernels_cpu.add_low_rank(rows, rows.copy(), rows.copy(), rows.copy(), zero, one, zero, one)
    for size in HEAD_SIZES:
        query, slots = np.zeros((1, 1, size), np.float32), np.zeros((1, 16, size), np.float32)
        tables, lse = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32)
        kernels_cpu.attend_rows(size)(
            query, slots, slots.copy(), tables, zero, one, 16, np.float32(1), query.copy(), lse
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
