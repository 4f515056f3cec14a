"""The models and adapters that are benchmarked, made once into the cache: `python -m bench.models S M L`.

Random Llamas in float32, saved by transformers, each with a byte-level tokenizer, and LoRAs in the form in which PEFT
saves them. Nothing is downloaded, and nothing depends on what the weights say, only on their sizes.
"""

import fcntl
import hashlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama; every weight is drawn from a normal distribution with deviation `deviation`."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    deviation: float

    def module(self, target: str) -> tuple[int, int]:
        """Inputs and outputs of one of the attention's linear modules."""
        narrow = self.hidden // self.heads * self.kv_heads
        return self.hidden, narrow if target in ("k_proj", "v_proj") else self.hidden


# Deviations near 1/sqrt(hidden): a layer then neither drowns in the embedding nor drowns it, and answers vary.
SHAPES = {
    "S": Shape(hidden=256, layers=4, heads=4, kv_heads=4, intermediate=688, vocab=9_472, deviation=0.06),
    "M": Shape(hidden=768, layers=12, heads=12, kv_heads=12, intermediate=2048, vocab=20_000, deviation=0.036),
    "L": Shape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, vocab=8_192, deviation=0.022),
}
"""8 million, 116 million and 1.0 billion parameters."""
_SMOLLM2 = Shape(hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536, vocab=49_152, deviation=0.0)


def shape(name: str) -> Shape:
    """Sizes of S, M, L or SmolLM2, which is no random model: 135 million parameters, from `hack/smollm2`."""
    return _SMOLLM2 if name == "SmolLM2" else SHAPES[name]


def cache_root() -> Path:
    """Where everything made for benchmarks is kept; named by a hash of what it is made from."""
    made_from = [repr(SHAPES), *(inspect.getsource(maker) for maker in (_make_model, _make_adapter))]
    key = hashlib.sha256("\n".join(made_from).encode()).hexdigest()[:16]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motet" / f"bench-{key}"


def model(name: str) -> Path:
    """The folder of model S, M, L or SmolLM2; made now if it is not there."""
    if name == "SmolLM2":
        command = [Path(__file__).parents[1] / "hack" / "smollm2"]
        return Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    path = cache_root() / name / "base"
    with _made_once(path) as missing:
        if missing:
            print(f"[models] making {name} in {path}", file=sys.stderr)
            _make_model(path, SHAPES[name])
    return path


def adapters(
    name: str, count: int, rank: int, targets: Iterable[str] = QKVO, alora: tuple[int, ...] | None = None
) -> dict[str, Path]:
    """The first `count` adapters of a kind for a model: name -> folder. Made now if they are not there.

    `alora` are the invocation tokens of an activated LoRA (Greenewald et al. 2025); None makes plain LoRAs.
    """
    targets = tuple(targets)
    letters = "".join(target[0] for target in targets)
    kind = f"r{rank}-{letters}" + (f"-alora{'.'.join(map(str, alora))}" if alora else "")
    made: dict[str, Path] = {}
    for index in range(count):
        path = cache_root() / name / kind / f"{'alora' if alora else 'lora'}{rank}-{index:02}"
        with _made_once(path) as missing:
            if missing:
                _make_adapter(path, model(name), shape(name), rank, targets, alora, seed=index)
        made[path.name] = path
    return made


@contextmanager
def _made_once(path: Path) -> Iterator[bool]:
    """Whether `path` has to be made; marked as complete when the block ends without an error."""
    complete = path / ".complete"
    if complete.exists():
        yield False
        return
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not complete.exists()
        complete.touch()


def _make_model(path: Path, shape: Shape) -> None:
    """A random Llama, in shards of a gigabyte so that saving needs little memory beyond the weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.models import make_tiny_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=16_384,
        bos_token_id=256,
        eos_token_id=257,
        tie_word_embeddings=False,
        initializer_range=shape.deviation,
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(path, max_shard_size="1GB")
    make_tiny_tokenizer(path)


def _make_adapter(
    path: Path, base: Path, shape: Shape, rank: int, targets: tuple[str, ...], alora: tuple[int, ...] | None, seed: int
) -> None:
    """A LoRA with alpha twice its rank; B is not zero, so that it changes what the base says.

    A is scaled so that A x is about as large as x, B so that the adapter's share of a module's output is about a third.
    """
    import numpy
    from safetensors.numpy import save_file

    random = numpy.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for layer in range(shape.layers):
        for target in targets:
            inputs, outputs = shape.module(target)
            module = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            down = random.standard_normal((rank, inputs), dtype=numpy.float32) / inputs**0.5
            up = random.standard_normal((outputs, rank), dtype=numpy.float32) * (0.15 / rank**0.5)
            tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": list(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "alora_invocation_tokens": list(alora) if alora else None,
    }
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SHAPES:
        print(model(wanted), json.dumps(asdict(shape(wanted))))
