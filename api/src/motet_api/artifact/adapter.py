"""An adapter's two files, checked as a whole: what is known of it once everything holds."""

from collections.abc import Mapping
from dataclasses import dataclass

from motet_api.artifact.lora_config import inspect_config
from motet_api.artifact.safetensors_header import TensorInfo, read_header
from motet_api.artifact.targets import HeadTensors, LinearShapes, TargetModule, match_head, match_targets
from motet_api.identity import ADAPTER_WEIGHTS_FILE, Digest


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is known of a verified adapter: how its weights apply to the base. Without the weights.

    `rank` is the largest of any module, `size_bytes` that of the tensors in the file. `invocation`, set for an
    activated LoRA, is the token ids from whose last occurrence in the prompt on it acts. `held_bytes` is what it takes
    on a pod, where that is known.
    """

    digest: Digest
    rank: int
    size_bytes: int
    targets: tuple[TargetModule, ...]
    invocation: tuple[int, ...] = ()
    head: HeadTensors | None = None
    held_bytes: int | None = None

    @property
    def target_names(self) -> list[str]:
        """The kinds of module that are changed (`q_proj`, ...), for people."""
        return sorted({target.name.rpartition(".")[2] for target in self.targets})


def inspect_adapter(
    digest: Digest,
    config_text: bytes | memoryview,
    weights: memoryview,
    base: LinearShapes | None,
    *,
    hidden: int | None,
    max_rank: int | None,
) -> tuple[Artifact, Mapping[str, TensorInfo]]:
    """Check an adapter's files; returns what it is, and where its tensors lie in `weights`, which is not copied.

    What the weights' numbers are is not looked at: whether they are finite is asked where they are read.

    Args:
        digest: the files' digest, as the caller found it.
        config_text: adapter_config.json.
        weights: the safetensors file; an mmap will do.
        base: the linear modules that an adapter may change, None if they are not known.
        hidden: width of the base's hidden state, None if it is not known.
        max_rank: largest rank that is served, None if any is.

    Raises:
        ArtifactError: with the first thing that is wrong, cheapest checks first.
    """
    config = inspect_config(config_text, max_rank)
    tensors = read_header(ADAPTER_WEIGHTS_FILE, weights).tensors
    artifact = Artifact(
        digest=digest,
        rank=config.max_rank,
        size_bytes=sum(tensor.nbytes for tensor in tensors.values()),
        targets=match_targets(config, tensors, base),
        invocation=config.invocation,
        head=match_head(config, tensors, hidden),
    )
    return artifact, tensors
