"""More adapters than there is room for, in slots, in memory and on disk: all are answered as if there were plenty."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.models import make_adapter, make_tiny_llama
from tests.runtime.process import Reply, RuntimeProcess, runtime_process
from tests.waiting import eventually

pytestmark = pytest.mark.process

PROMPT = "Where is my parcel?"
COUNT = 6
NAMES = [f"a{number}@v1" for number in range(COUNT)]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    base = make_tiny_llama(folder / "tiny")
    for number in range(COUNT):
        make_adapter(folder / f"a{number}", base, seed=number + 1, rank=8)
    return folder


@pytest.fixture(scope="module")
def expected(material: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each answers where there is room for all."""
    with runtime_process(material / "tiny", tmp_path_factory.mktemp("plenty")) as runtime:
        want_all(runtime, material)
        texts = {name: text_of(ask(runtime, name)) for name in ["tiny", *NAMES]}
    assert len(set(texts.values())) == COUNT + 1
    return texts


def want_all(runtime: RuntimeProcess, folder: Path, **more: Path | str) -> None:
    runtime.want(**{f"a{number}_v1": folder / f"a{number}" for number in range(COUNT)} | more)
    eventually(lambda: runtime.ready().status == 200, seconds=60)


def ask(runtime: RuntimeProcess, model: str, tokens: int = 12, **more: Any) -> Reply:
    body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return runtime.ask("/v1/completions", body | more)


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.text
    return str(reply.json()["choices"][0]["text"])


def all_at_once(runtime: RuntimeProcess, models: list[str], tokens: int = 12) -> list[tuple[str, Reply]]:
    found: list[tuple[str, Reply]] = []
    threads = [threading.Thread(target=lambda m=model: found.append((m, ask(runtime, m, tokens)))) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_two_slots_serve_six_adapters_and_the_base_at_once(
    material: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    with runtime_process(material / "tiny", tmp_path, "--adapter-slots", "2", "--adapter-host-memory", "0") as runtime:
        want_all(runtime, material)
        found = all_at_once(runtime, ["tiny", *NAMES] * 4)
        assert {(model, text_of(reply)) for model, reply in found} == set(expected.items())
        assert len(found) == 28
        assert runtime.metric("motet_runtime_adapter_slots_used") == 2
        assert runtime.metric('motet_runtime_adapter_slot_changes_total{change="eviction"}') >= COUNT - 2
        runtime.settled()


def test_an_adapter_is_unloaded_while_others_run_and_its_twin_stays(
    material: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    with runtime_process(material / "tiny", tmp_path, "--adapter-slots", "2") as runtime:
        want_all(runtime, material, twin_v1=material / "a0")
        for _ in range(3):
            asking = threading.Thread(target=all_at_once, args=(runtime, [*NAMES[1:], "twin@v1"] * 3, 40))
            asking.start()
            runtime.want(twin_v1=material / "a0", **{f"a{n}_v1": material / f"a{n}" for n in range(1, COUNT)})
            eventually(lambda: NAMES[0] not in runtime.reasons())
            gone = ask(runtime, NAMES[0])
            assert (gone.status, gone.json()["error"]["code"]) == (404, "adapter_not_found")
            assert text_of(ask(runtime, "twin@v1")) == expected[NAMES[0]]
            asking.join()
            runtime.want(**{f"a{n}_v1": material / f"a{n}" for n in range(COUNT)}, twin_v1=material / "a0")
            eventually(lambda: set(runtime.reasons().values()) == {"Resident"})
            assert text_of(ask(runtime, NAMES[0])) == expected[NAMES[0]]
        runtime.want(a1_v1=material / "a1")
        eventually(lambda: runtime.reasons() == {"a1@v1": "Resident"})
        assert text_of(ask(runtime, "a1@v1")) == expected["a1@v1"]
        runtime.settled()


def test_what_the_disk_gave_up_is_fetched_again_and_only_if_it_is_the_same(
    material: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for number in range(COUNT):
        shutil.copytree(material / f"a{number}", source / f"a{number}")
    options = ("--adapter-slots", "2", "--adapter-host-memory", "0", "--adapter-disk", "0")
    with runtime_process(material / "tiny", tmp_path, *options) as runtime:
        want_all(runtime, source)
        assert len(list((tmp_path / "adapter-cache").rglob("*.flat"))) == 1, "the disk keeps what was written last"
        for _ in range(2):
            found = all_at_once(runtime, ["tiny", *NAMES])
            assert {(model, text_of(reply)) for model, reply in found} == set(expected.items())

        shutil.copy(source / "a1/adapter_model.safetensors", source / "a0/adapter_model.safetensors")
        shutil.rmtree(source / "a2")
        for model in NAMES[3:5]:  # now neither slots nor memory nor disk have a0 or a2
            assert text_of(ask(runtime, model)) == expected[model]
        found = all_at_once(runtime, ["tiny", *NAMES])
        for model, reply in found:
            if model not in ("a0@v1", "a2@v1"):
                assert text_of(reply) == expected[model]
                continue
            error = reply.json()["error"]
            assert (reply.status, error["code"]) == (500, "generation_failed")
            assert model in error["message"]
            assert "does not have what was loaded from it any more" in error["message"]
            assert "new version" in error["message"]

        for number in (0, 2):
            shutil.copytree(material / f"a{number}", source / f"a{number}", dirs_exist_ok=True)
            assert text_of(ask(runtime, NAMES[number])) == expected[NAMES[number]], "put back, it is served again"
        runtime.settled()


def test_a_file_that_was_damaged_or_removed_under_us_is_fetched_again(
    material: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    options = ("--adapter-slots", "1", "--adapter-host-memory", "0")
    with runtime_process(material / "tiny", tmp_path, *options) as runtime:
        want_all(runtime, material)
        for path in (tmp_path / "adapter-cache").rglob("*.flat"):
            path.unlink()
        for name in NAMES:
            assert text_of(ask(runtime, name)) == expected[name]


def test_longer_requests_than_the_kv_memory_holds_are_refused_and_the_rest_take_turns(
    material: Path, tmp_path: Path
) -> None:
    """One MiB holds 2048 tokens of this model: four of its longest answers, and sixteen are wanted at once."""
    options = ("--kv-memory", "1", "--max-batch-size", "16", "--adapter-slots", "2")
    with runtime_process(material / "tiny", tmp_path, *options) as runtime:
        want_all(runtime, material)
        models = (["tiny", *NAMES] * 3)[:16]
        alone = {model: text_of(ask(runtime, model, 450)) for model in set(models)}
        found = all_at_once(runtime, models, 450)
        assert [(model, text_of(reply)) for model, reply in found if text_of(reply) != alone[model]] == []
        assert runtime.metric("motet_runtime_preemptions_total") > 0
        runtime.settled()


def test_a_request_that_no_memory_is_there_for_is_refused_by_field(material: Path, tmp_path: Path) -> None:
    options = ("--kv-memory", "1", "--max-model-len", "100")
    with runtime_process(material / "tiny", tmp_path, *options) as runtime:
        want_all(runtime, material)
        for more, field in (({"prompt": "x" * 101}, "prompt"), ({"max_tokens": 99}, "max_tokens")):
            refused = ask(runtime, "tiny", **more)
            assert (refused.status, refused.json()["error"]["param"]) == (400, field)
            assert "100" in refused.json()["error"]["message"]
        longest = ask(runtime, "tiny", 100 - len(PROMPT))
        assert longest.json()["usage"]["total_tokens"] == 100
