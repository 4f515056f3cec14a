"""The process that looks at files: what it says, and what becomes of it when a file is too much for it."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from motet_api.artifact.errors import ArtifactError
from motet_api.identity import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, Digest
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactKind
from motet_operator.store import examiner as examiner_module
from motet_operator.store import examiner_process
from motet_operator.store.errors import StoreError
from motet_operator.store.examiner import Examiner
from motet_operator.store.examiner_process import answer
from tests.operator.store.material import BASE, OTHER_BASE, adapter

DIGEST = Digest("sha256:" + "0" * 64)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for name, data in adapter().items():
        (tmp_path / name).write_bytes(data)
    return {"config": tmp_path / ADAPTER_CONFIG_FILE, "weights": tmp_path / ADAPTER_WEIGHTS_FILE}


async def test_it_answers_and_ends(files: dict[str, Path]) -> None:
    examiner = Examiner()
    facts = await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)
    fits = [(await examiner.fit(DIGEST, files, base)).reason for base in (BASE, OTHER_BASE)]
    await examiner.close()
    assert (facts.rank, facts.target_modules) == (4, ["q_proj", "v_proj"])
    assert fits == [None, AdapterReason.BASE_MISMATCH]


async def test_a_process_that_died_is_started_anew(files: dict[str, Path]) -> None:
    examiner = Examiner()
    await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)
    process = examiner._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert (await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)).rank == 4
    await examiner.close()


async def test_one_that_ends_over_a_question_is_a_fault_that_is_tried_again(files: dict[str, Path]) -> None:
    examiner = Examiner()
    examiner._words = ("-c", "input()")
    with pytest.raises(StoreError) as failed:
        await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)
    assert failed.value.reason is AdapterReason.LOAD_FAILED
    assert failed.value.reason.transient


async def test_one_that_does_not_answer_is_ended(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    examiner = Examiner()
    await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)
    process = examiner._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr(examiner_module, "_WALL_SECONDS", 0.05)
    with pytest.raises(StoreError, match="in time"):
        await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)
    assert process.returncode is not None
    monkeypatch.undo()
    assert (await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)).rank == 4
    await examiner.close()


async def test_a_question_that_is_given_up_is_not_answered_to_the_next(files: dict[str, Path]) -> None:
    examiner = Examiner()
    await examiner.examine(ArtifactKind.ADAPTER, DIGEST, files)
    asked = asyncio.create_task(examiner.fit(DIGEST, files, OTHER_BASE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (await examiner.fit(DIGEST, files, BASE)).reason is None
    await examiner.close()


async def test_a_file_that_takes_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"[" + b"[]," * 4_000_000 + b"[]]")
    examiner = Examiner(memory_bytes=128 << 20)
    with pytest.raises(StoreError, match="memory") as refused:
        await examiner.examine(ArtifactKind.BASE_MODEL, DIGEST, {"config.json": tmp_path / "config.json"})
    await examiner.close()
    assert refused.value.reason is AdapterReason.CORRUPT_WEIGHTS


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), AdapterReason.CORRUPT_WEIGHTS),
        (examiner_process._OutOfTimeError(), AdapterReason.INVALID_CONFIG),
        (ArtifactError(AdapterReason.UNSUPPORTED, "x" * 100_000), AdapterReason.UNSUPPORTED),
    ],
)
def test_what_a_file_costs_is_its_own_fault(
    error: Exception, reason: AdapterReason, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(examiner_process, "examine_adapter", refuse)
    question = {"ask": "adapter", "digest": DIGEST, "files": {name: str(path) for name, path in files.items()}}
    said = answer(question)
    assert said["reason"] == reason
    assert len(said["message"]) <= 2000
