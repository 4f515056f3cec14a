"""The forms of LoRA that PEFT writes: which are served, which are refused, and that each field was thought about."""

import dataclasses
import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from motet_api.artifact.lora_config import parse_lora_config
from motet_api.artifact.targets import HeadTensors
from motet_api.reasons import AdapterReason
from motet_runtime.errors import AdapterError
from tests.models import edit_config, make_adapter, make_classifier, make_tiny_llama
from tests.runtime.test_adapter_checks import SHAPES, WEIGHTS, check, with_head


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", base)


def test_an_activated_lora_passes_with_its_invocation(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "a", base, config={"alora_invocation_tokens": [60, 7, 60]})
    assert check(adapter).artifact.invocation == (60, 7, 60)
    edit_config(adapter, task_type=None)
    assert check(adapter).artifact.invocation == (60, 7, 60)


def test_a_classifier_passes_with_its_head(base: Path, tmp_path: Path) -> None:
    adapter = make_classifier(tmp_path / "a", base, labels=3)
    artifact = check(adapter).artifact
    assert artifact.head == HeadTensors("base_model.model.score.weight", None, 3)
    assert {target.name for target in artifact.targets} == set(SHAPES)
    assert artifact.size_bytes == sum(t.nbytes for t in load_file(adapter / WEIGHTS).values())
    # Before PEFT wrote the head's names into the configuration, and after it wrote them twice.
    for saved in (None, ["classifier", "score", "classifier", "score"]):
        edit_config(adapter, modules_to_save=saved)
        assert check(adapter).artifact.head == artifact.head


def test_a_head_may_have_a_bias_and_another_name(base: Path, tmp_path: Path) -> None:
    adapter = make_classifier(tmp_path / "a", base, labels=3)
    with_head({"classifier.weight": torch.zeros(5, 64), "classifier.bias": torch.zeros(5)})(adapter)
    wanted = HeadTensors("base_model.model.classifier.weight", "base_model.model.classifier.bias", 5)
    assert check(adapter).artifact.head == wanted


HEADS: dict[str, tuple[dict[str, torch.Tensor], AdapterReason, str]] = {
    "no head": ({}, AdapterReason.CORRUPT_WEIGHTS, "the file has 0"),
    "two heads": (
        {"score.weight": torch.zeros(2, 64), "classifier.weight": torch.zeros(2, 64)},
        AdapterReason.CORRUPT_WEIGHTS,
        "the file has 2",
    ),
    "another width": ({"score.weight": torch.zeros(2, 32)}, AdapterReason.BASE_MISMATCH, "[labels, 64]"),
    "no matrix": ({"score.weight": torch.zeros(64)}, AdapterReason.BASE_MISMATCH, "[labels, 64]"),
    "no labels": ({"score.weight": torch.zeros(0, 64)}, AdapterReason.BASE_MISMATCH, "[labels, 64]"),
    "another bias": (
        {"score.weight": torch.zeros(2, 64), "score.bias": torch.zeros(3)},
        AdapterReason.BASE_MISMATCH,
        "2 labels",
    ),
    "a bias alone": ({"score.bias": torch.zeros(2)}, AdapterReason.CORRUPT_WEIGHTS, "the file has 0"),
    "a deeper head": (
        {"score.weight": torch.zeros(2, 64), "classifier.dense.weight": torch.zeros(2, 64)},
        AdapterReason.UNSUPPORTED,
        "classifier.dense.weight is no low-rank weight",
    ),
}


@pytest.mark.parametrize(("head", "reason", "said"), HEADS.values(), ids=HEADS)
def test_another_head_than_the_base_can_feed_is_refused(
    adapter: Path, head: dict[str, torch.Tensor], reason: AdapterReason, said: str
) -> None:
    edit_config(adapter, task_type="SEQ_CLS", modules_to_save=["classifier", "score"])
    with_head(head)(adapter)
    with pytest.raises(AdapterError) as refused:
        check(adapter)
    assert refused.value.reason is reason
    assert said in refused.value.message


def test_every_layer_is_chosen_by_an_empty_list(adapter: Path) -> None:
    edit_config(adapter, layers_to_transform=[])
    assert len(check(adapter).artifact.targets) == 4


HANDLED = {
    *("peft_type", "task_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("init_lora_weights", "alora_invocation_tokens"),
}
HARMLESS = {
    "auto_mapping": {"base_model_class": "LlamaModel"},
    "base_model_name_or_path": "somewhere",
    "corda_config": {"corda_method": "ipm"},
    "ensure_weight_tying": True,
    "eva_config": {"rho": 2.0},
    "inference_mode": False,
    "loftq_config": {"loftq_bits": 4},
    "lora_dropout": 0.1,
    "lora_ga_config": {"direction": "ArB2r"},
    "megatron_core": "megatron.core",
    "peft_version": "0.1",
    "qalora_group_size": 8,
    "revision": "main",
    "runtime_config": {"ephemeral_gpu_offload": True},
}
REFUSED = {
    "arrow_config": {},
    "bias": "lora_only",
    "kasa_config": {},
    "layer_replication": [[0, 2], [1, 2]],
    "lora_bias": True,
    "megatron_config": {"a": 1},
    "monteclora_config": {"num_samples": 4},
    "target_parameters": ["experts.gate_up_proj"],
    "trainable_token_indices": [5],
    "use_bdlora": {},
    "use_dora": True,
    "use_qalora": True,
    "velora_config": {},
}


def test_each_field_that_peft_knows_is_decided_upon(adapter: Path) -> None:
    known = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    decided = [*HANDLED, *HARMLESS, *REFUSED]
    assert sorted(known) == sorted(decided)
    config = json.loads((adapter / "adapter_config.json").read_text())
    for field, value in HARMLESS.items():
        assert parse_lora_config(json.dumps({**config, field: value})) == parse_lora_config(json.dumps(config))
    for field, value in REFUSED.items():
        with pytest.raises(AdapterError, match=field) as refused:
            parse_lora_config(json.dumps({**config, field: value}))
        assert refused.value.reason is AdapterReason.UNSUPPORTED


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "OLoRA", "corda", "loftq", "lora_ga", "of tomorrow"])
def test_a_start_that_changes_the_base_is_refused(adapter: Path, start: str) -> None:
    edit_config(adapter, init_lora_weights=start)
    with pytest.raises(AdapterError, match=f"init_lora_weights is '{start}'.*plain LoRA") as refused:
        check(adapter)
    assert refused.value.reason is AdapterReason.UNSUPPORTED


@pytest.mark.parametrize("start", [None, True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_a_start_that_leaves_the_base_alone_passes(adapter: Path, start: object) -> None:
    edit_config(adapter, init_lora_weights=start)
    check(adapter)


@pytest.mark.parametrize("tokens", [[], "60 7", 60, [60, "7"], [60, -1], [60.0], [True], {"60": 7}, [2**40]])
def test_a_malformed_invocation_is_refused(adapter: Path, tokens: object) -> None:
    edit_config(adapter, alora_invocation_tokens=tokens)
    with pytest.raises(AdapterError, match="alora_invocation_tokens must be a list of token ids") as refused:
        check(adapter)
    assert refused.value.reason is AdapterReason.INVALID_CONFIG
