"""One step of the base model over a packed batch, with adapters."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from motet_api.artifact.targets import LinearShapes
from motet_api.identity import Digest
from motet_runtime.engine.linear import ServedLinear, adapt_linears
from motet_runtime.engine.lora import LoraSegment, LoraStacks
from motet_runtime.engine.packed import AttentionBackend, PackedRow
from motet_runtime.engine.plan import Chunk, Plan
from motet_runtime.engine.sampling import Sampler
from motet_runtime.engine.sequence import RowFailure, SampledToken, SamplingParams, Sequence

Head = tuple[torch.Tensor, torch.Tensor | None]
"""A classification head: weight (labels, hidden) and bias (labels,)."""


class ModelRunner:
    """Runs plans: packs the chunks' tokens, lets adapters act on theirs, computes logits where wanted, samples."""

    def __init__(
        self, model: Any, shapes: LinearShapes, stacks: LoraStacks, attention: AttentionBackend, device: torch.device
    ) -> None:
        self.device = device
        self.dtype: torch.dtype = model.dtype
        self.shapes = shapes
        self.stacks = stacks
        self.sampler = Sampler(device)
        self._model = model
        self._attention = attention
        self._heads: dict[Digest, Head] = {}
        self._hidden: torch.Tensor | None = None
        adapt_linears(model, stacks, shapes)
        self._unpacked = deque(module for module in model.modules() if isinstance(module, ServedLinear))
        # What the output's linear module gets is the last hidden state, at the wanted places only.
        model.get_output_embeddings().register_forward_pre_hook(self._keep_hidden)

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

    @property
    def vocabulary(self) -> int:
        """Number of logits."""
        return int(self._model.get_output_embeddings().out_features)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden state, which a classification head reads."""
        return int(self._model.config.hidden_size)

    def write_adapter(
        self, digest: Digest, row: int, modules: Mapping[str, tuple[torch.Tensor, torch.Tensor]], head: Head | None
    ) -> None:
        """Put an adapter's weights in place (from any thread; no running sequence uses those rows).

        On a GPU by a stream of its own, so that the copies run beside the batch; they are done when this returns.
        """
        if self.device.type == "cuda":
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            with torch.cuda.stream(stream):
                self.stacks.write(row, modules)
            stream.synchronize()
        else:
            self.stacks.write(row, modules)
        if head is not None:
            # Copies: a view would keep the adapter's whole file in memory.
            weight, bias = head
            self._heads[digest] = (weight.to(self.device, copy=True), None if bias is None else bias.clone())

    def forget_adapter(self, digest: Digest) -> None:
        """An adapter is gone for good."""
        self._heads.pop(digest, None)

    def pack_next(self) -> bool:
        """Pack the weights of one more linear module; False if all are.

        Between steps, so that a fresh pod answers first and gets faster within its first steps. A module's products
        differ by rounding before and after.
        """
        if not self._unpacked:
            return False
        with torch.no_grad():
            self._unpacked.popleft().pack()
        return True

    @torch.inference_mode()
    def run(self, plan: Plan) -> dict[int, SampledToken | RowFailure]:
        """Compute one step; returns by sequence id the sampled token, or why a row could not be computed."""
        wanted, logits, hidden = self._logits(plan)
        self._note_prompt_logprobs(wanted, logits)
        last = {chunk.sequence.id: index for index, (chunk, _) in enumerate(wanted)}
        sampling = [chunk.sequence for chunk in plan.chunks if chunk.samples]
        classified = [one for one in sampling if one.adapter and one.adapter.head_labels]
        sampling = [one for one in sampling if one not in classified]
        out: dict[int, SampledToken | RowFailure] = {
            one.id: self._classified(one, hidden[last[one.id]]) for one in classified
        }
        if sampling:
            rows = [last[sequence.id] for sequence in sampling]
            out |= self.sampler.sample(sampling, logits if rows == list(range(len(logits))) else logits[rows])
        return out

    def _logits(self, plan: Plan) -> tuple[list[tuple[Chunk, int]], torch.Tensor, torch.Tensor]:
        """Logits (rows, vocabulary) and hidden states where they are wanted, with chunk and position of each row.

        Wanted are the last token of a chunk that samples, and those before prompt tokens whose log-probabilities were
        asked for.
        """
        ids: list[int] = []
        positions: list[int] = []
        rows: list[PackedRow] = []
        segments: list[LoraSegment] = []
        wanted: list[tuple[Chunk, int]] = []
        keep: list[int] = []
        # Answers first: their attention is one call. Then by adapter, whose weights then stay in the cache.
        for chunk in sorted(plan.chunks, key=lambda chunk: (chunk.count > 1, chunk.count, chunk.sequence.row)):
            sequence, offset, end = chunk.sequence, len(ids), chunk.start + chunk.count
            ids += sequence.tokens(chunk.start, chunk.count)
            positions += range(chunk.start, end)
            rows.append(PackedRow(offset, chunk.count, chunk.start, sequence.blocks))
            acts_from = max(chunk.start, sequence.acts_from)
            if sequence.adapter is not None and acts_from < end:
                segments.append(LoraSegment(sequence.row, offset + acts_from - chunk.start, end - acts_from))
            chosen = _wanted(chunk)
            wanted += [(chunk, position) for position in chosen]
            keep += [offset + position - chunk.start for position in chosen]
        self._attention.begin(rows)
        self.stacks.begin(segments)
        out = self._model(
            input_ids=torch.tensor([ids], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            use_cache=False,
            # A chunk in the middle of a prompt wants none; the model is given one position all the same.
            logits_to_keep=torch.tensor(keep or [0], device=self.device),
            motet_backend=self._attention,
        )
        hidden, self._hidden = self._hidden, None
        assert hidden is not None
        return wanted, out.logits[0, : len(keep)], hidden[0]

    def _keep_hidden(self, _: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        self._hidden = inputs[0]

    def _classified(self, sequence: Sequence, hidden: torch.Tensor) -> SampledToken | RowFailure:
        assert sequence.adapter is not None
        weight, bias = self._heads[sequence.adapter.digest]
        scores = torch.nn.functional.linear(hidden.to(weight), weight, bias)
        if not torch.isfinite(scores).all():
            return RowFailure("the scores of the classes are not finite: a weight overflows")
        return SampledToken(int(scores.argmax()), scores=tuple(scores.tolist()))

    def warm_up(self) -> None:
        """Compute a prompt and an answer's token: what is slow the first time is slow before anybody waits for it."""
        # Nobody holds a block yet, so all of it may be written to the first, whatever its size.
        sequence = Sequence(0, (0, 0), SamplingParams(max_new_tokens=2), blocks=[0, 0, 0])
        self.run(Plan((Chunk(sequence, 0, 2, samples=True),)))
        sequence.output.append(0)
        self.run(Plan((Chunk(sequence, 2, 1, samples=True),)))

    def _note_prompt_logprobs(self, wanted: list[tuple[Chunk, int]], logits: torch.Tensor) -> None:
        noted: list[tuple[int, Sequence, int]] = []
        for index, (chunk, position) in enumerate(wanted):
            sequence, first = chunk.sequence, chunk.sequence.params.prompt_logprobs_from
            known = sum(one is sequence for _, one, _ in noted[-chunk.count :])
            if first is None or position + 1 != first + len(sequence.prompt_logprobs) + known:
                continue  # not asked for, or noted before the sequence was preempted
            if position + 1 < len(sequence.prompt):
                noted.append((index, sequence, sequence.prompt[position + 1]))
        if not noted:
            return
        rows, sequences, tokens = zip(*noted, strict=True)
        logprobs = torch.log_softmax(logits[list(rows)].float(), dim=-1)
        chosen = logprobs.gather(1, torch.tensor(tokens, device=self.device)[:, None])[:, 0].tolist()
        for sequence, value in zip(sequences, chosen, strict=True):
            sequence.prompt_logprobs.append(value)


def _wanted(chunk: Chunk) -> range:
    """Positions of a chunk whose logits are wanted."""
    end = chunk.start + chunk.count
    last = range(end - 1, end) if chunk.samples else range(0)
    first = chunk.sequence.params.prompt_logprobs_from
    if first is None:
        return last
    before = range(max(chunk.start, first - 1), min(end, len(chunk.sequence.prompt) - 1))
    return range(before.start, end) if before and chunk.samples else before or last
