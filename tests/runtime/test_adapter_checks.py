"""What is wrong with an adapter is found before it is loaded, with the reason that says what to do."""

import json
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from motet_api.identity import Digest, manifest_digest
from motet_api.reasons import AdapterReason
from motet_runtime.adapters.artifact import VerifiedAdapter, folder_digest, verify
from motet_runtime.errors import AdapterError
from tests.models import edit_config, make_adapter, make_tiny_llama

SHAPES = {
    f"model.layers.{layer}.{block}.{name}": shape
    for layer in range(2)
    for block, modules in {
        "self_attn": {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)},
        "mlp": {"gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)},
    }.items()
    for name, shape in modules.items()
}
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    return make_adapter(folder / "good", make_tiny_llama(folder / "base"), rank=4, targets=("q_proj", "v_proj"))


@pytest.fixture
def adapter(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "adapter")
    return tmp_path / "adapter"


def check(adapter: Path, wanted: Digest | None = None, max_rank: int = 16) -> VerifiedAdapter:
    return verify(adapter, wanted, SHAPES, hidden=64, max_rank=max_rank)


def test_a_good_adapter_passes(adapter: Path) -> None:
    artifact = check(adapter, folder_digest(adapter), max_rank=4).artifact
    assert (artifact.rank, artifact.target_names) == (4, ["q_proj", "v_proj"])
    assert len(artifact.targets) == 4
    assert artifact.size_bytes == 4 * 2 * ((4 * 64 + 64 * 4) + (4 * 64 + 32 * 4))
    assert {target.scale for target in artifact.targets} == {2.0}
    assert (artifact.invocation, artifact.head) == ((), None)


def test_what_is_verified_is_not_changed_by_a_later_write(adapter: Path) -> None:
    verified = check(adapter)
    data = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(bytes(len(data)))
    assert bytes(verified.data) == data


def truncate(adapter: Path) -> None:
    data = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(data[: len(data) // 2])


def lie_about_length(adapter: Path) -> None:
    data = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + data[8:])


def pickled_instead(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps({}))


def pickled_in_disguise(adapter: Path) -> None:
    torch.save({"a": torch.zeros(1)}, adapter / WEIGHTS)


def no_weights(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()


def no_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()


def link_out(adapter: Path) -> None:
    (adapter / WEIGHTS).rename(adapter.parent / "elsewhere.safetensors")
    (adapter / WEIGHTS).symlink_to(adapter.parent / "elsewhere.safetensors")


def broken_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("{")


def nested_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("[" * 100_000)


def nested_header(adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)


def other_shapes(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    save_file(
        {name: torch.zeros(2 * t.shape[0], t.shape[1]) if "lora_B" in name else t for name, t in tensors.items()},
        adapter / WEIGHTS,
    )


def without_a_module(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    save_file({name: t for name, t in tensors.items() if ".1.self_attn.v_proj" not in name}, adapter / WEIGHTS)


def with_head(head: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    """Puts these tensors in place of an adapter's head."""

    def change(adapter: Path) -> None:
        low_rank = {name: tensor for name, tensor in load_file(adapter / WEIGHTS).items() if "lora_" in name}
        named = {f"base_model.model.{name}": tensor for name, tensor in head.items()}
        save_file({**low_rank, **named}, adapter / WEIGHTS)

    return change


def set_config(**changes: object) -> Callable[[Path], None]:
    return lambda adapter: edit_config(adapter, **changes)


def too_large(adapter: Path) -> None:
    edit_config(adapter, rank_pattern={"q_proj": 64})


BROKEN: dict[str, tuple[Callable[[Path], None], AdapterReason, str]] = {
    "truncated": (truncate, AdapterReason.CORRUPT_WEIGHTS, "truncated"),
    "lying header": (lie_about_length, AdapterReason.CORRUPT_WEIGHTS, "not safetensors"),
    "pickle": (pickled_instead, AdapterReason.UNSAFE_FORMAT, "save the adapter as safetensors"),
    "pickle named safetensors": (pickled_in_disguise, AdapterReason.UNSAFE_FORMAT, "pickle"),
    "weights missing": (no_weights, AdapterReason.SOURCE_NOT_FOUND, WEIGHTS),
    "config missing": (no_config, AdapterReason.SOURCE_NOT_FOUND, "adapter_config.json"),
    "link out of the folder": (link_out, AdapterReason.SOURCE_NOT_FOUND, "leads out"),
    "config no JSON": (broken_config, AdapterReason.INVALID_CONFIG, "not JSON"),
    "config without rank": (set_config(r=None), AdapterReason.INVALID_CONFIG, "r is missing"),
    "config without targets": (set_config(target_modules=[]), AdapterReason.INVALID_CONFIG, "target_modules"),
    "config nested without end": (nested_config, AdapterReason.INVALID_CONFIG, "nested too deeply"),
    "rank pattern a list": (set_config(rank_pattern=["q_proj"]), AdapterReason.INVALID_CONFIG, "rank_pattern must map"),
    "rank pattern of words": (
        set_config(rank_pattern={"q": "8"}),
        AdapterReason.INVALID_CONFIG,
        "rank_pattern must map",
    ),
    "rank pattern of zero": (set_config(rank_pattern={"q": 0}), AdapterReason.INVALID_CONFIG, "from 1 on"),
    "rank pattern no expression": (set_config(rank_pattern={"(": 4}), AdapterReason.INVALID_CONFIG, "no regular"),
    "alpha no number": (set_config(lora_alpha=float("nan")), AdapterReason.INVALID_CONFIG, "lora_alpha"),
    "alpha beyond a float": (set_config(lora_alpha=10**400), AdapterReason.INVALID_CONFIG, "lora_alpha"),
    "layers in words": (set_config(layers_to_transform="all"), AdapterReason.INVALID_CONFIG, "layers_to_transform"),
    "targets of numbers": (set_config(target_modules=[1]), AdapterReason.INVALID_CONFIG, "target_modules must be"),
    "exclusions a number": (set_config(exclude_modules=3), AdapterReason.INVALID_CONFIG, "exclude_modules must be"),
    "header nested without end": (nested_header, AdapterReason.CORRUPT_WEIGHTS, "header cannot be read"),
    "rank too large": (set_config(r=65), AdapterReason.RANK_TOO_LARGE, "maxRank 16"),
    "rank pattern too large": (too_large, AdapterReason.RANK_TOO_LARGE, "rank 64"),
    "another rank than the weights": (set_config(r=8), AdapterReason.BASE_MISMATCH, "lora_A"),
    "shapes of another base": (other_shapes, AdapterReason.BASE_MISMATCH, "has shape"),
    "no such module": (set_config(target_modules=["c_attn"]), AdapterReason.BASE_MISMATCH, "matches no module"),
    "a module without weights": (without_a_module, AdapterReason.CORRUPT_WEIGHTS, "no weights"),
    "weights left over": (set_config(target_modules=["q_proj"]), AdapterReason.INVALID_CONFIG, "does not target"),
    "layers of an expression": (
        set_config(target_modules=".*_proj", layers_to_transform=[0]),
        AdapterReason.INVALID_CONFIG,
        "layers_to_transform needs",
    ),
    "layers pattern no expression": (
        set_config(layers_to_transform=[0], layers_pattern="("),
        AdapterReason.INVALID_CONFIG,
        "layers_pattern",
    ),
    "a word for a flag": (set_config(use_rslora="false"), AdapterReason.INVALID_CONFIG, "use_rslora must be"),
    "DoRA": (set_config(use_dora=True), AdapterReason.UNSUPPORTED, "DoRA"),
    "modules_to_save": (set_config(modules_to_save=["lm_head"]), AdapterReason.UNSUPPORTED, "modules_to_save"),
    "bias": (set_config(bias="all"), AdapterReason.UNSUPPORTED, "bias"),
    "aLoRA of a classifier": (
        set_config(alora_invocation_tokens=[1, 2], task_type="SEQ_CLS"),
        AdapterReason.UNSUPPORTED,
        "only CAUSAL_LM",
    ),
    "a head of another task": (
        set_config(modules_to_save=["score"], task_type="TOKEN_CLS"),
        AdapterReason.UNSUPPORTED,
        "modules_to_save is ['score']",
    ),
    "a classifier with more than its head": (
        set_config(modules_to_save=["score", "lm_head"], task_type="SEQ_CLS"),
        AdapterReason.UNSUPPORTED,
        "modules_to_save is ['score', 'lm_head']",
    ),
    "a head that is not announced": (
        with_head({"score.weight": torch.zeros(2, 64)}),
        AdapterReason.UNSUPPORTED,
        "score.weight is no low-rank weight",
    ),
    "another method": (set_config(peft_type="LOHA"), AdapterReason.UNSUPPORTED, "LOHA"),
}


@pytest.mark.parametrize(("breakage", "reason", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_adapter_is_refused(
    adapter: Path, breakage: Callable[[Path], None], reason: AdapterReason, said: str
) -> None:
    breakage(adapter)
    with pytest.raises(AdapterError) as refused:
        check(adapter)
    assert refused.value.reason is reason
    assert said in refused.value.message


def test_bytes_that_are_not_those_of_the_digest_are_refused(adapter: Path) -> None:
    wanted = folder_digest(adapter)
    edit_config(adapter, lora_alpha=17)
    with pytest.raises(AdapterError, match="have digest") as refused:
        check(adapter, wanted)
    assert refused.value.reason is AdapterReason.DIGEST_MISMATCH


def test_weights_of_another_type_than_floating_point_are_refused(adapter: Path) -> None:
    tensors = {name: t.to(torch.int8) for name, t in load_file(adapter / WEIGHTS).items()}
    save_file(tensors, adapter / WEIGHTS)
    with pytest.raises(AdapterError, match="floating point"):
        check(adapter)


def test_overlapping_tensors_are_refused(adapter: Path) -> None:
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("a", "b")}
    text = json.dumps(header).encode()
    (adapter / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(AdapterError, match="overlap"):
        check(adapter)


def test_the_digest_is_what_sha256sum_would_print(adapter: Path) -> None:
    shell = f"sha256sum adapter_config.json {WEIGHTS} | sha256sum | cut -d ' ' -f 1"
    printed = subprocess.run(["sh", "-c", shell], cwd=adapter, capture_output=True, text=True, check=True).stdout
    assert folder_digest(adapter) == f"sha256:{printed.strip()}"
    with pytest.raises(ValueError, match="made of"):
        manifest_digest({"adapter_config.json": "a" * 64})
