"""What the process is told at its start."""

from dataclasses import dataclass
from pathlib import Path

from motet_api.modeldeployment import DType


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
    max_model_len: int | None
    max_batch_size: int
    max_step_tokens: int
    max_rank: int
    threads: int | None
    drain_grace_seconds: float
    drain_timeout_seconds: float
