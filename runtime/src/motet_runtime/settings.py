"""What the process is told at its start."""

from dataclasses import dataclass
from pathlib import Path

from motet_api.dtypes import DType
from motet_api.identity import Digest


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The engine's budgets as they are configured. Sizes in bytes; None takes a share of what there is.

    `max_tokens`: most tokens of one sequence, where that is less than the model allows.
    """

    max_batch_size: int
    max_step_tokens: int
    max_rank: int
    adapter_slots: int
    block_size: int = 16
    kv_bytes: int | None = None
    adapter_bytes: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Every option of `motet-runtime serve`."""

    model: str
    model_name: str
    pod_name: str
    claim_root: Path
    host: str
    port: int
    admin_port: int
    dtype: DType
    engine: EngineOptions
    max_stretch: float
    adapter_cache: Path
    adapter_disk_bytes: int
    adapter_host_bytes: int
    threads: int | None
    drain_grace_seconds: float
    drain_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """Every option of `motet-runtime fetch`. `patience_seconds`: how long a store that does not answer is waited for,
    counted anew whenever it has brought something."""

    store: str
    digest: Digest
    folder: Path
    patience_seconds: float
