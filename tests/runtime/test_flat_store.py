"""The disk tier serves what was verified, keeps within its bytes, and survives crashes, damage and rivals."""

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motet_api.reasons import AdapterReason
from motet_runtime.adapters.artifact import VerifiedAdapter, verify
from motet_runtime.adapters.flat_file import FlatAdapter
from motet_runtime.adapters.flat_store import FlatStore
from motet_runtime.errors import AdapterError
from tests.models import make_adapter, make_classifier, make_tiny_llama
from tests.runtime.test_adapter_checks import SHAPES, WEIGHTS

PREFIX = "base_model.model."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def sources(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [make_adapter(folder / str(seed), base, seed=seed) for seed in range(3)]


@pytest.fixture
def adapters(sources: list[Path]) -> list[VerifiedAdapter]:
    return [check(source) for source in sources]


def check(folder: Path) -> VerifiedAdapter:
    return verify(folder, None, SHAPES, hidden=64, max_rank=16)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(one: FlatAdapter, other: FlatAdapter) -> bool:
    return one.modules.keys() == other.modules.keys() and all(
        torch.equal(mine, theirs)
        for name in one.modules
        for mine, theirs in zip(one.modules[name], other.modules[name], strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("saved", [torch.float64, torch.float32, torch.bfloat16])
def test_the_products_are_those_of_the_adapter(
    base: Path, tmp_path: Path, dtype: torch.dtype, saved: torch.dtype
) -> None:
    options = {"rank_pattern": {"k_proj": 3}, "alpha_pattern": {"0.mlp.down_proj": 5}, "use_rslora": True}
    folder = make_adapter(tmp_path / "a", base, targets="all-linear", config=options)
    tensors = {name: tensor.to(saved) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    verified = check(folder)
    flat = FlatStore(tmp_path / "store", dtype).write(verified)
    assert flat.modules.keys() == SHAPES.keys()
    for target in verified.artifact.targets:
        rank = 3 if "k_proj" in target.name else 4
        alpha = 5 if target.name == "model.layers.0.mlp.down_proj" else 8
        a, b = flat.modules[target.name]
        scaled = tensors[f"{PREFIX}{target.name}.lora_B.weight"].float() * (alpha / rank**0.5)
        assert torch.equal(a, tensors[f"{PREFIX}{target.name}.lora_A.weight"].to(dtype))
        assert torch.equal(b, scaled.T.to(dtype))
        assert a.is_contiguous() and b.is_contiguous()
    assert flat.head is None
    assert flat.nbytes == sum(a.nbytes + b.nbytes for a, b in flat.modules.values())


def test_a_head_stays_in_float32(base: Path, tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "a", base, labels=3)
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, f"{PREFIX}score.bias": torch.tensor([0.1, 0.2, 0.3])}, folder / WEIGHTS)
    flat = FlatStore(tmp_path / "store", torch.bfloat16).write(check(folder))
    assert flat.head is not None and flat.head.bias is not None
    assert torch.equal(flat.head.weight, tensors[f"{PREFIX}score.weight"])
    assert flat.head.bias.tolist() == pytest.approx([0.1, 0.2, 0.3], abs=1e-7)
    assert len(flat.modules) == len(SHAPES)


def test_the_file_is_one_that_safetensors_reads_and_is_mapped_without_a_copy(
    adapters: list[VerifiedAdapter], tmp_path: Path
) -> None:
    flat = FlatStore(tmp_path, torch.bfloat16).write(adapters[0])
    (name,) = files(tmp_path)
    assert name == adapters[0].artifact.digest.removeprefix("sha256:") + "-bfloat16.flat"
    with safe_open(tmp_path / name, framework="pt") as file:
        for module, (a, b) in flat.modules.items():
            assert torch.equal(file.get_tensor(f"{module}.a"), a)
            assert torch.equal(file.get_tensor(f"{module}.b"), b)
    addresses = [tensor.data_ptr() for pair in flat.modules.values() for tensor in pair]
    assert max(addresses) - min(addresses) < flat.nbytes
    assert min(addresses) % 64 == 0
    # A mapping is private: no reader can spoil the file for another.
    next(iter(flat.modules.values()))[0].zero_()
    assert not same(flat, FlatStore(tmp_path, torch.bfloat16).open(adapters[0].artifact.digest))


def test_weights_at_odd_places_of_the_file_are_read(sources: list[Path], tmp_path: Path) -> None:
    data = (sources[0] / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    odd = (length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[8 + length :]
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(odd)
    (folder / "adapter_config.json").write_bytes((sources[0] / "adapter_config.json").read_bytes())
    store = FlatStore(tmp_path / "store", torch.float32)
    assert same(store.write(check(folder)), store.write(check(sources[0])))


def test_what_is_served_is_what_was_verified(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", base)
    wanted = FlatStore(tmp_path / "one", torch.float32).write(check(folder))
    verified = check(folder)
    (folder / WEIGHTS).write_bytes(bytes((folder / WEIGHTS).stat().st_size))
    assert same(FlatStore(tmp_path / "two", torch.float32).write(verified), wanted)


@pytest.mark.parametrize(
    ("key", "value", "dtype"),
    [
        ("model.layers.1.self_attn.v_proj.lora_A.weight", float("nan"), torch.float32),
        ("model.layers.1.self_attn.v_proj.lora_B.weight", float("-inf"), torch.bfloat16),
        # Finite until it is scaled, or until it is rounded.
        ("model.layers.1.self_attn.v_proj.lora_B.weight", 3e38, torch.float32),
        ("model.layers.1.self_attn.v_proj.lora_A.weight", 7e4, torch.float16),
        ("score.weight", float("inf"), torch.float16),
    ],
)
def test_weights_that_are_not_finite_are_refused(
    base: Path, tmp_path: Path, key: str, value: float, dtype: torch.dtype
) -> None:
    folder = make_classifier(tmp_path / "a", base)
    tensors = load_file(folder / WEIGHTS)
    tensors[PREFIX + key][1, 2] = value
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(AdapterError, match="not finite in") as refused:
        FlatStore(tmp_path / "store", dtype).write(check(folder))
    assert refused.value.reason is AdapterReason.CORRUPT_WEIGHTS
    assert key.partition(".lora")[0] in refused.value.message
    assert files(tmp_path / "store") == []


def test_a_file_that_is_there_is_used_again(adapters: list[VerifiedAdapter], tmp_path: Path) -> None:
    first = FlatStore(tmp_path, torch.float32).write(adapters[0])
    (path,) = tmp_path.iterdir()
    inode = path.stat().st_ino
    again = FlatStore(tmp_path, torch.float32)
    assert same(again.open(adapters[0].artifact.digest), first)
    assert same(again.write(adapters[0]), first)
    assert path.stat().st_ino == inode


def test_writers_of_one_adapter_do_not_disturb_each_other(adapters: list[VerifiedAdapter], tmp_path: Path) -> None:
    stores = [FlatStore(tmp_path, torch.float32) for _ in range(2)]
    barrier = threading.Barrier(4)

    def write(index: int) -> FlatAdapter:
        barrier.wait(10)
        return stores[index % 2].write(adapters[0])

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, range(4)))
    assert all(same(flat, written[0]) for flat in written)
    assert len(files(tmp_path)) == 1


def test_a_removed_adapter_is_gone_but_stays_usable_where_it_is_open(
    adapters: list[VerifiedAdapter], tmp_path: Path
) -> None:
    store, digest = FlatStore(tmp_path, torch.float32), adapters[0].artifact.digest
    flat = store.write(adapters[0])
    store.remove(digest)
    store.remove(digest)
    with pytest.raises(FileNotFoundError, match=f"{digest} is not on disk"):
        store.open(digest)
    assert same(flat, store.write(adapters[0]))


def test_the_one_opened_longest_ago_makes_room(adapters: list[VerifiedAdapter], tmp_path: Path) -> None:
    store = FlatStore(tmp_path, torch.float32)
    first, second, third = (adapter.artifact.digest for adapter in adapters)
    store.write(adapters[0])
    two = 2 * next(tmp_path.iterdir()).stat().st_size
    store.write(adapters[1])
    store.open(first)
    # What was used when outlives the process.
    store = FlatStore(tmp_path, torch.float32, max_bytes=two)
    store.write(adapters[2])
    assert [store.open(digest) is not None for digest in (first, third)] == [True, True]
    with pytest.raises(FileNotFoundError):
        store.open(second)


def test_the_newest_is_kept_even_if_it_is_larger_than_the_bytes(
    adapters: list[VerifiedAdapter], tmp_path: Path
) -> None:
    store = FlatStore(tmp_path, torch.float32, max_bytes=1)
    first, second = (adapter.artifact.digest for adapter in adapters[:2])
    store.write(adapters[0])
    store.write(adapters[1])
    with pytest.raises(FileNotFoundError):
        store.open(first)
    assert store.open(second) is not None


def test_what_a_crash_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    left, live = tmp_path / ".a-float32.flat-1.part", tmp_path / ".b-float32.flat-2.part"
    left.write_bytes(b"half")
    with live.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        FlatStore(tmp_path, torch.float32)
        assert files(tmp_path) == [live.name]
    FlatStore(tmp_path, torch.float32)
    assert files(tmp_path) == []


def hole(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def older(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"motet-flat-1", b"motet-flat-0"))


@pytest.mark.parametrize("damage", [hole, cut, empty, older])
def test_a_file_of_an_earlier_process_is_checked(
    adapters: list[VerifiedAdapter], tmp_path: Path, damage: object
) -> None:
    flat, digest = FlatStore(tmp_path / "good", torch.float32).write(adapters[0]), adapters[0].artifact.digest
    FlatStore(tmp_path / "bad", torch.float32).write(adapters[0])
    (path,) = (tmp_path / "bad").iterdir()
    damage(path)  # type: ignore[operator]
    store = FlatStore(tmp_path / "bad", torch.float32)
    with pytest.raises(FileNotFoundError, match="damaged"):
        store.open(digest)
    assert not path.exists()
    assert same(store.write(adapters[0]), flat)
    assert same(FlatStore(tmp_path / "bad", torch.float32).open(digest), flat)


def test_a_dtype_that_no_base_computes_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not in int8"):
        FlatStore(tmp_path, torch.int8)
