"""The base model and one step of it over a packed batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from motet_api.modeldeployment import DType
from motet_runtime.engine import packed_attention
from motet_runtime.engine.lora import LoraLayers
from motet_runtime.engine.packed_attention import KvCache, PackedRow
from motet_runtime.engine.sampling import Sampler
from motet_runtime.engine.scheduler import Chunk, Plan
from motet_runtime.engine.sequence import RowFailure, SampledToken, SamplingParams, Sequence
from motet_runtime.errors import ModelError

_DTYPES: Final[dict[DType, Any]] = {
    DType.AUTO: "auto",
    DType.FLOAT32: torch.float32,
    DType.BFLOAT16: torch.bfloat16,
    DType.FLOAT16: torch.float16,
}


class ModelRunner:
    """Runs plans: packs the chunks' tokens, applies adapters, keeps each sequence's KV cache, samples."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.device = device
        self.dtype: torch.dtype = model.dtype
        self.lora = LoraLayers(model)
        self.sampler = Sampler(device)
        self._model = model
        self._caches: dict[int, KvCache] = {}

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer, by the model's configuration and by that of its generation."""
        found: set[int] = set()
        for config in (self._model.config, self._model.generation_config):
            ids = getattr(config, "eos_token_id", None)
            found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
        return frozenset(found)

    @property
    def max_positions(self) -> int:
        """Most tokens that the model's positions allow."""
        return int(self._model.config.max_position_embeddings)

    @torch.inference_mode()
    def run(self, plan: Plan) -> dict[int, SampledToken | RowFailure]:
        """Compute one step; returns by sequence id the sampled token, or why a row could not be computed."""
        out: dict[int, SampledToken | RowFailure] = {
            chunk.sequence.id: RowFailure(f"adapter {chunk.sequence.adapter} is not resident")
            for chunk in plan.chunks
            if not self.lora.holds(chunk.sequence.adapter)
        }
        chunks = tuple(chunk for chunk in plan.chunks if chunk.sequence.id not in out)
        return out | self._compute(Plan(chunks)) if chunks else out

    def _compute(self, plan: Plan) -> dict[int, SampledToken | RowFailure]:
        wanted, logits = self.logits(plan)
        self._note_prompt_logprobs(plan, wanted, logits)
        last = {chunk.sequence.id: index for index, (chunk, _) in enumerate(wanted)}
        sampling = [chunk.sequence for chunk in plan.chunks if chunk.samples]
        if not sampling:
            return {}
        return self.sampler.sample(sampling, logits[[last[sequence.id] for sequence in sampling]])

    def logits(self, plan: Plan) -> tuple[list[tuple[Chunk, int]], torch.Tensor]:
        """Logits (rows, vocabulary) where they are wanted: for each row its chunk and the position it predicts from.

        Wanted are the last token of a chunk that samples, and every token of a prompt whose log-probabilities were
        asked for.
        """
        ids: list[int] = []
        positions: list[int] = []
        rows: list[PackedRow] = []
        wanted: list[tuple[Chunk, int]] = []
        keep: list[int] = []
        for chunk in plan.chunks:
            sequence, offset = chunk.sequence, len(ids)
            ids += sequence.tokens(chunk.start, chunk.count)
            positions += range(chunk.start, chunk.start + chunk.count)
            rows.append(PackedRow(offset, chunk.count, chunk.start, self._caches.setdefault(sequence.id, KvCache())))
            first = 0 if _wants_prompt(chunk) else chunk.count - 1
            chosen = range(first, chunk.count) if chunk.samples or _wants_prompt(chunk) else range(0)
            wanted += [(chunk, chunk.start + index) for index in chosen]
            keep += [offset + index for index in chosen]
        self.lora.begin(
            (chunk.sequence.adapter, row.offset, row.count) for chunk, row in zip(plan.chunks, rows, strict=True)
        )
        out = self._model(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=False,
            # A chunk in the middle of a prompt wants none; the model is given one position all the same.
            logits_to_keep=torch.tensor(keep or [0], device=self.device),
            packed_rows=rows,
        )
        return wanted, out.logits[0, : len(keep)]

    def warm_up(self) -> None:
        """Compute two steps of one sequence: what is slow the first time is slow before anybody waits for it."""
        sequence = Sequence(0, (0, 0), SamplingParams(max_new_tokens=2))
        self.run(Plan((Chunk(sequence, 0, 2, samples=True),)))
        sequence.output.append(0)
        self.run(Plan((Chunk(sequence, 2, 1, samples=True),)))
        self.forget(sequence)

    def forget(self, sequence: Sequence) -> None:
        """Free what is kept for a sequence."""
        self._caches.pop(sequence.id, None)
        self.sampler.forget(sequence)

    def _note_prompt_logprobs(self, plan: Plan, wanted: list[tuple[Chunk, int]], logits: torch.Tensor) -> None:
        if not any(_wants_prompt(chunk) for chunk in plan.chunks):
            return
        for index, (chunk, position) in enumerate(wanted):
            prompt = chunk.sequence.prompt
            if _wants_prompt(chunk) and position + 1 < len(prompt):
                logprobs = torch.log_softmax(logits[index].float(), dim=-1)
                chunk.sequence.prompt_logprobs.append(float(logprobs[prompt[position + 1]]))


def _wants_prompt(chunk: Chunk) -> bool:
    return chunk.sequence.params.prompt_logprobs and chunk.start < len(chunk.sequence.prompt)


def load_model(folder: Path, dtype: DType, stage: Callable[[str], None]) -> ModelRunner:
    """Load a base model from a folder that transformers saved; `stage` is told when a stage of the work is done.

    Raises:
        ModelError: the folder is no such model, or of a kind that is not supported.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json: --model must name a folder that transformers saved")
    packed_attention.register()
    disable_progress_bar()  # the log is one JSON object a line
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        packed_attention.check_supported(config)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=_DTYPES[dtype],
            attn_implementation=packed_attention.NAME,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} cannot be loaded: {error}") from error
    model = model.to(device).eval().requires_grad_(False)
    stage("weights")
    return ModelRunner(model, device)
