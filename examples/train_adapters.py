"""Trains the example adapters: three small LoRAs of SmolLM2 that answer the same prompt in three ways.

The prompt is always `Customer: <what the customer said>` and `Label:`. What the label means is up to the adapter:

    call-topic v1       the topic in one word                    billing
    call-topic v2       topic and detail, twice the rank         billing / refund
    call-sentiment v1   how the customer feels                   negative

`python examples/train_adapters.py --model DIR` writes each in PEFT's format below a cache folder, whose path is the
last line it prints, and says how often base and adapter are right on utterances that no training step saw. A second
run with the same script, data and model finds the folder and trains nothing.
"""

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA: Final = Path(__file__).parent / "data" / "calls.jsonl"
TARGET_MODULES: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH: Final = 8
IGNORED: Final = -100
EVALUATION_BATCH: Final = 24
ANSWER_TOKENS: Final = 6

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one adapter version is made."""

    adapter: str
    version: str
    rank: int
    epochs: int
    answer: Callable[[Row], str]
    question: str
    """What the base is asked in words, with the possible answers listed, for a fair try without training."""
    labels: tuple[str, ...]


TOPICS: Final = ("billing", "delivery", "account", "technical")
SENTIMENTS: Final = ("negative", "neutral", "positive")
RECIPES: Final = (
    Recipe("call-topic", "v1", 8, 4, lambda row: row["topic"], "What is this customer's call about?", TOPICS),
    Recipe(
        "call-topic",
        "v2",
        16,
        5,
        lambda row: f"{row['topic']} / {row['detail']}",
        "What is this customer's call about?",
        TOPICS,
    ),
    Recipe("call-sentiment", "v1", 8, 3, lambda row: row["sentiment"], "How does this customer feel?", SENTIMENTS),
)


def prompt(text: str) -> str:
    """What every request to the example adapters looks like."""
    return f"Customer: {text}\nLabel:"


def read_rows(split: str) -> list[Row]:
    """The utterances of one split, `train` or `heldout`."""
    rows: list[Row] = [json.loads(line) for line in DATA.read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def cache_folder(model: Path) -> Path:
    """Where the adapters of this script, these data and this model lie."""
    digest = hashlib.sha256()
    for path in (Path(__file__), DATA, model / "config.json", model / "tokenizer.json"):
        digest.update(path.read_bytes())
    digest.update(str((model / "model.safetensors").stat().st_size).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "motet" / f"adapters-{digest.hexdigest()[:16]}"


def batch(tokenizer: Any, recipe: Recipe, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input ids, attention mask and targets, each (rows, longest); prompt and padding are `IGNORED` in the targets."""
    encoded = []
    for row in rows:
        asked = tokenizer(prompt(row["text"]))["input_ids"]
        answered = [*tokenizer(f" {recipe.answer(row)}")["input_ids"], tokenizer.eos_token_id]
        encoded.append((asked, answered))
    longest = max(len(asked) + len(answered) for asked, answered in encoded)
    ids = torch.full((len(rows), longest), tokenizer.eos_token_id)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    targets = torch.full((len(rows), longest), IGNORED)
    for index, (asked, answered) in enumerate(encoded):
        end = len(asked) + len(answered)
        ids[index, :end] = torch.tensor(asked + answered)
        mask[index, :end] = 1
        targets[index, len(asked) : end] = torch.tensor(answered)
    return ids, mask, targets


def completion_loss(model: PeftModel, ids: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the answers' tokens. Logits are computed for these tokens only: the vocabulary is large."""
    causal = model.base_model.model
    hidden = causal.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, :-1]
    wanted = targets[:, 1:]
    rows = wanted != IGNORED
    return cross_entropy(causal.lm_head(hidden[rows]), wanted[rows])


def train(base: Any, tokenizer: Any, recipe: Recipe, folder: Path) -> PeftModel:
    """Train one version and write it to `folder` in PEFT's format."""
    torch.manual_seed(17)
    config = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules=TARGET_MODULES, task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows = read_rows("train")
    steps = recipe.epochs * (len(rows) // BATCH)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)
    started = time.monotonic()
    step = 0
    model.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(rows)).tolist()
        for first in range(0, len(rows) - BATCH + 1, BATCH):
            loss = completion_loss(
                model, *batch(tokenizer, recipe, [rows[index] for index in order[first : first + BATCH]])
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step += 1
            if step % 18 == 0 or step == steps:
                seconds = time.monotonic() - started
                print(f"  step {step:3d}/{steps}  loss {loss.item():.3f}  {seconds:5.1f} s", flush=True)
    model.eval()
    model.save_pretrained(folder)
    # safetensors makes its file readable by the owner alone; the pods that will read it are another user.
    for path in folder.iterdir():
        path.chmod(0o644)
    return model


@torch.inference_mode()
def answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """Greedy answers, in batches padded on the left so that every answer starts at the same place."""
    texts = []
    for first in range(0, len(prompts), EVALUATION_BATCH):
        encoded = [tokenizer(text)["input_ids"] for text in prompts[first : first + EVALUATION_BATCH]]
        longest = max(map(len, encoded))
        pads = [longest - len(ids) for ids in encoded]
        output = model.generate(
            input_ids=torch.tensor(
                [[tokenizer.eos_token_id] * pad + ids for pad, ids in zip(pads, encoded, strict=True)]
            ),
            attention_mask=torch.tensor([[0] * pad + [1] * len(ids) for pad, ids in zip(pads, encoded, strict=True)]),
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        texts += [text.strip() for text in tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)]
    return texts


@torch.inference_mode()
def likeliest(model: Any, tokenizer: Any, recipe: Recipe, text: str) -> str:
    """The label that the untrained base finds likeliest when it is asked in words, in its own chat template.

    A model of this size rarely keeps to the labels when it writes freely; scoring the labels is its best chance.
    """
    content = f"{recipe.question} Answer with one word: {', '.join(recipe.labels)}.\n\n{text}"
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer(asked)["input_ids"]])
    scores = model(ids).logits[0, -1]
    first_tokens = [tokenizer(label)["input_ids"][0] for label in recipe.labels]
    return recipe.labels[int(scores[first_tokens].argmax())]


def report(model: PeftModel, tokenizer: Any, recipe: Recipe) -> dict[str, float]:
    """Shares of right answers on the held-out rows, for the base and for the adapter."""
    rows = read_rows("heldout")
    asked = [prompt(row["text"]) for row in rows]
    label = "sentiment" if recipe.adapter == "call-sentiment" else "topic"

    def share(given: Sequence[str], wanted: Callable[[Row], str]) -> float:
        return round(sum(answer.lower() == wanted(row) for answer, row in zip(given, rows, strict=True)) / len(rows), 3)

    with model.disable_adapter():
        base = answers(model, tokenizer, asked)
        scored = [likeliest(model, tokenizer, recipe, row["text"]) for row in rows]
    adapted = answers(model, tokenizer, asked)
    return {
        "base, same prompt": share([answer.partition(" ")[0] for answer in base], lambda row: row[label]),
        "base, asked in words, likeliest label": share(scored, lambda row: row[label]),
        f"adapter, {label}": share([answer.partition(" ")[0] for answer in adapted], lambda row: row[label]),
        "adapter, whole answer": share(adapted, recipe.answer),
    }


def make(model: Path, folder: Path) -> None:
    """Train every recipe into `folder/ADAPTER/VERSION`; the folder appears complete or not at all."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    results = {}
    for recipe in RECIPES:
        name = f"{recipe.adapter}/{recipe.version}"
        print(
            f"{name}: rank {recipe.rank}, {recipe.epochs} epochs over {len(read_rows('train'))} utterances", flush=True
        )
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        trained = train(base, tokenizer, recipe, partial / name)
        results[name] = report(trained, tokenizer, recipe)
        print(
            "  right on held-out: " + ", ".join(f"{who} {share:.0%}" for who, share in results[name].items()),
            flush=True,
        )
    (partial / "accuracy.json").write_text(json.dumps(results, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def main() -> None:
    """Train what is not cached; print the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2, as transformers saves it")
    parser.add_argument("--output", type=Path, help="folder for the adapters (default: a cache folder)")
    parser.add_argument("--threads", type=int, default=2, help="threads for torch (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # Products in bfloat16 where the processor has them: many times faster here. Weights and optimizer stay float32.
    torch.set_float32_matmul_precision("medium")
    folder = arguments.output or cache_folder(arguments.model)
    if not (folder / "accuracy.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        make(arguments.model, folder)
    print(folder)


if __name__ == "__main__":
    main()
