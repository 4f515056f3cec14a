"""Benchmarks of one thing at a time: a panel over one transcript, loading, gaps beside a long prompt, starting up."""

import statistics
import sys
from collections.abc import Collection
from pathlib import Path

from bench import models
from bench.batches import LABELS, RANK, prompts
from bench.process import Answer, EngineMissingError, Process, Setup, first_token
from bench.turns import WARM_UP, Job, running, worst_difference

PANEL, TRANSCRIPT, QUESTION = 60, 2048, 8
INVOCATION = (17, 18, 19)
"""An activated LoRA acts from these tokens on; they occur nowhere else in the prompts."""
COMPARED = 4

LOADED_RANK, RESIDENT, LOADS = 16, 63, 9

RUNNING, LONG_PROMPT, SHORT_ANSWER = 16, 7000, 64

STARTS = {"start_vs_peft": ("motet", "peft"), "start_vs_openvino": ("motet", "openvino")}


def _panel_job(names: list[str], turn: int) -> Job:
    """One transcript, and for each adapter the tokens that call it and a question of its own."""
    (transcript,) = prompts("M", 1, TRANSCRIPT, f"transcript {turn}")
    questions = prompts("M", len(names), QUESTION, f"questions {turn}")
    suffixes = [[*INVOCATION, *question] for question in questions]
    return {"op": "panel", "transcript": transcript, "adapters": names, "suffixes": suffixes, "token_ids": LABELS}


def _one_by_one(panel: Job, names: list[str]) -> Job:
    """The same requests without a panel: each a prompt of its own."""
    whole = [[*panel["transcript"], *suffix] for suffix in panel["suffixes"]]
    return {"op": "score", "prompts": whole[: len(names)], "adapters": names, "token_ids": panel["token_ids"]}


def panel(_: Collection[str], rounds: int | None) -> dict[str, float]:
    """CPU seconds of 60 plain LoRAs over one transcript against a panel of 60 activated ones, which share its work."""
    path = models.model("M")
    plain = models.adapters("M", PANEL, RANK)
    activated = models.adapters("M", PANEL, RANK, alora=INVOCATION)
    names = list(activated)
    compared = names[:: PANEL // COMPARED][:COMPARED]
    flags = ("--slots", str(PANEL), "--max-rank", str(RANK))
    setups = {
        "motet": Setup("motet", path, tuple(activated.items()), flags),
        "motet_plain": Setup("motet", path, tuple(plain.items()), flags),
        "peft": Setup("peft", path, tuple((name, activated[name]) for name in compared)),
    }
    with running(setups) as processes:
        if "motet" not in processes:
            return {}
        warm_up = _panel_job(names, WARM_UP)
        processes["motet"].ask(warm_up)
        processes["motet_plain"].ask(_one_by_one(warm_up, list(plain)[:2]))
        turns = range(WARM_UP + 1, (rounds or 3) + 1)
        answers = [processes["motet"].ask(_panel_job(names, turn)) for turn in turns]
        # A round of plain LoRAs takes minutes and is one long computation, so one is enough.
        alone = processes["motet_plain"].ask(_one_by_one(_panel_job(names, turns[0]), list(plain)))
        spent = statistics.median(answer["cpu_s"] for answer in answers)
        figures = {
            "panel_speedup": round(alone["cpu_s"] / spent, 2),
            "panel_cpu_s": round(spent, 2),
            "panel_plain_cpu_s": round(alone["cpu_s"], 1),
        }
        if "peft" in processes:
            figures["panel_worst_difference"] = _compare(processes["peft"], names, compared, turns[0], answers[0])
    return figures


def _compare(peft: Process, names: list[str], compared: list[str], turn: int, answer: Answer) -> float:
    """The worst relative difference between the panel's scores and PEFT's activated LoRA, one by one."""
    job = _panel_job(names, turn)
    rows = [names.index(name) for name in compared]
    job["suffixes"] = [job["suffixes"][row] for row in rows]
    reference = peft.ask(_one_by_one(job, compared))
    return worst_difference([answer["scores"][row] for row in rows], reference["scores"])


def loading(wanted: Collection[str], _: int | None) -> dict[str, float]:
    """Milliseconds to load an adapter from the page cache: the worse of none and 63 resident.

    CPU time, as the machine is shared; wall time beside it.
    """
    figures: dict[str, float] = {}
    adapters = models.adapters("M", RESIDENT + LOADS, LOADED_RANK)
    resident, loaded = dict(list(adapters.items())[:RESIDENT]), dict(list(adapters.items())[RESIDENT:])
    for engine, figure in (("motet", "load_ms"), ("peft", "peft_load_ms"), ("vllm", "vllm_load_ms")):
        if figure not in wanted:
            continue
        setup = Setup(engine, models.model("M"), flags=("--slots", "64", "--max-rank", str(LOADED_RANK)))
        with running({engine: setup}) as processes:
            if process := processes.get(engine):
                spent = [_load_all(process, loaded)]
                for name, path in resident.items():
                    process.ask({"op": "load", "name": name, "path": str(path)})
                spent.append(_load_all(process, loaded))
                figures[figure] = round(1000 * max(cpu for cpu, _ in spent), 2)
                figures[f"{figure.removesuffix('_ms')}_wall_ms"] = round(1000 * max(wall for _, wall in spent), 2)
    return figures


def _load_all(process: Process, adapters: dict[str, Path]) -> tuple[float, float]:
    """Load and evict each; median CPU and wall seconds of a load, without the first."""
    answers = []
    for name, path in adapters.items():
        (path / "adapter_model.safetensors").read_bytes()
        answers.append(process.ask({"op": "load", "name": name, "path": str(path)}))
        process.ask({"op": "evict", "name": name})
    cpu, wall = ([answer[key] for answer in answers[1:]] for key in ("cpu_s", "wall_s"))
    return statistics.median(cpu), statistics.median(wall)


def gaps(_: Collection[str], rounds: int | None) -> dict[str, float]:
    """How much longer the gaps between an answer's tokens become while another request's long prompt is read.

    16 short requests (64 tokens in, 64 out) run at any time, each by its own adapter. The 95th percentile of the gaps
    beside the long prompt over the median of those before, in CPU time.
    """
    adapters = models.adapters("M", RUNNING, RANK)
    setup = Setup("motet", models.model("M"), tuple(adapters.items()))
    figures: dict[str, list[float]] = {}
    with running({"motet": setup}) as processes:
        for turn in range((rounds or 3) + 1 if processes else 0):
            length = LONG_PROMPT // 8 if turn == WARM_UP else LONG_PROMPT
            job: Job = {"op": "gaps", "adapters": list(adapters), "new_tokens": SHORT_ANSWER}
            job["prompts"] = prompts("M", 1000, 64, f"running {turn}")
            (job["long_prompt"],) = prompts("M", 1, length, f"long {turn}")
            answer = processes["motet"].ask(job)
            alone, beside = statistics.median(answer["alone"]), statistics.median(answer["beside"])
            late = statistics.quantiles(answer["beside"], n=20)[-1]
            row = {
                "gap_ratio": late / alone,
                "gap_median_ratio": beside / alone,
                "gap_alone_p95_ratio": statistics.quantiles(answer["alone"], n=20)[-1] / alone,
                "gap_alone_ms": 1000 * alone,
            }
            print(
                f"[bench] round {turn}  {', '.join(f'{name} {value:.2f}' for name, value in row.items())}",
                file=sys.stderr,
            )
            if turn != WARM_UP:
                for name, value in row.items():
                    figures.setdefault(name, []).append(value)
    return {name: round(statistics.median(values), 2) for name, values in figures.items()}


def starting(wanted: Collection[str], rounds: int | None) -> dict[str, float]:
    """CPU seconds from process start to the first token of a prompt by one adapter; ratios of them."""
    ratios = {figure: pair for figure, pair in STARTS.items() if figure in wanted}
    adapter = tuple(models.adapters("M", 1, RANK).items())
    setups = {name: Setup(name, models.model("M"), adapter) for pair in ratios.values() for name in pair}
    spent: dict[str, list[float]] = {}
    for turn in range((rounds or 5) + 1):
        for name in [*setups]:
            try:
                stages = first_token(setups[name])
            except EngineMissingError as missing:
                print(f"[bench] without {name}: {missing}", file=sys.stderr)
                del setups[name]
                continue
            table = ", ".join(f"{stage} {wall:.2f}/{cpu:.2f}" for stage, wall, cpu in stages)
            print(f"[bench] start {turn}  {name:10} wall/CPU s by the end of: {table}", file=sys.stderr)
            if turn != WARM_UP:
                spent.setdefault(name, []).append(stages[-1][2])
    figures = {f"{name}_start_cpu_s": round(statistics.median(rows), 2) for name, rows in spent.items()}
    for figure, (name, other) in ratios.items():
        if name in spent and other in spent:
            pairs = zip(spent[name], spent[other], strict=True)
            figures[figure] = round(statistics.median(ours / theirs for ours, theirs in pairs), 3)
    return figures
