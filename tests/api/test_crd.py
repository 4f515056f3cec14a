"""The generated definitions: what is on disk is what the types say, and the schema is one that Kubernetes takes."""

import re
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from pydantic import Field

from motet_api.crd import lora_adapter_crd, model_deployment_crd, structural_schema
from motet_api.loraadapter import LoraAdapterStatus
from motet_api.modeldeployment import ModelDeploymentStatus
from motet_api.objects import KubeModel, ObjectMeta

ROOT = Path(__file__).parents[2]
DEFINITIONS = {"ModelDeployment": model_deployment_crd(), "LoraAdapter": lora_adapter_crd()}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = spec_from_file_location("generate_crds", ROOT / "hack/generate_crds.py")
    assert spec and spec.loader
    module = sys.modules["generate_crds"] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def version(definition: dict[str, Any]) -> dict[str, Any]:
    (only,) = definition["spec"]["versions"]
    return dict(only)


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


SCHEMAS = {kind: version(definition)["schema"]["openAPIV3Schema"] for kind, definition in DEFINITIONS.items()}
NODES = [(f"{kind}{path}", node) for kind, schema in SCHEMAS.items() for path, node in nodes(schema)]


def test_files_are_up_to_date(generator: ModuleType) -> None:
    assert generator.drift(ROOT) == [], "run 'make crds'"


def test_check_fails_on_drift_and_writing_heals_it(generator: ModuleType, tmp_path: Path) -> None:
    root = ["--root", str(tmp_path)]
    assert generator.main(["--check", *root]) == 1
    assert generator.main(root) == 0
    assert generator.main(["--check", *root]) == 0
    changed = tmp_path / "crds/motet.dev_loraadapters.yaml"
    changed.write_text(changed.read_text().replace("maxItems: 32", "maxItems: 33"))
    assert generator.main(["--check", *root]) == 1


@pytest.mark.parametrize(("path", "node"), NODES, ids=[path for path, _ in NODES])
def test_schema_is_structural(path: str, node: dict[str, Any]) -> None:
    assert not {"$ref", "$defs", "title", "anyOf", "const"} & set(node)
    assert "type" in node or node.get("x-kubernetes-int-or-string")
    assert not ("properties" in node and "additionalProperties" in node)
    assert None not in (node.get("default", ""), node.get("nullable", ""))


@pytest.mark.parametrize(("path", "node"), NODES, ids=[path for path, _ in NODES])
def test_map_lists_have_required_keys(path: str, node: dict[str, Any]) -> None:
    for key in node.get("x-kubernetes-list-map-keys", []):
        assert key in node["items"]["required"]


@pytest.mark.parametrize(("path", "node"), NODES, ids=[path for path, _ in NODES])
def test_rules_say_what_to_do_and_cost_is_bounded(path: str, node: dict[str, Any]) -> None:
    for rule in node.get("x-kubernetes-validations", []):
        assert re.search(r"must|required|immutable|zero|does not have", rule["message"])
    if ".spec" in path and node.get("type") == "array":
        assert "maxItems" in node, "the cost of a rule that walks an unbounded list is refused by the API server"


def test_optional_is_absent_and_defaults_fill_from_within() -> None:
    spec = SCHEMAS["ModelDeployment"]["properties"]["spec"]["properties"]
    assert "default" not in spec["autoscaling"]
    assert spec["autoscaling"]["type"] == "object"
    assert spec["queue"]["default"] == {}
    assert spec["queue"]["properties"]["maxWaitSeconds"]["default"] == 90
    assert "default" not in spec["template"]
    assert SCHEMAS["ModelDeployment"]["properties"]["spec"]["required"] == ["model"]


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_status_has_no_defaults_but_that_nobody_has_looked_yet(kind: str) -> None:
    status = SCHEMAS[kind]["properties"]["status"]
    assert [path for path, node in nodes(status) if "default" in node] == [""]
    assert status["default"] == {"observedGeneration": -1}


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_columns_show_fields_that_exist(kind: str) -> None:
    known = {path for path, _ in nodes(SCHEMAS[kind])} | {".metadata.creationTimestamp"}
    for column in version(DEFINITIONS[kind])["additionalPrinterColumns"]:
        assert re.sub(r"\[\?.*\]", "[]", column["jsonPath"]) in known


def test_scale_reads_and_writes_fields_that_exist() -> None:
    known = {path for path, _ in nodes(SCHEMAS["ModelDeployment"])}
    assert set(version(DEFINITIONS["ModelDeployment"])["subresources"]["scale"].values()) <= known
    assert "scale" not in version(DEFINITIONS["LoraAdapter"])["subresources"]


@pytest.mark.parametrize(
    ("kind", "status"), [("ModelDeployment", ModelDeploymentStatus()), ("LoraAdapter", LoraAdapterStatus())]
)
def test_a_written_status_has_no_field_that_the_schema_lacks(kind: str, status: KubeModel) -> None:
    known = SCHEMAS[kind]["properties"]["status"]["properties"]
    assert set(status.to_wire()) <= set(known)


class Choice(KubeModel):
    """A field of two types."""

    both: Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]


class Thing(KubeModel):
    """An object."""

    metadata: ObjectMeta
    spec: Choice
    status: Choice | None = None


def test_int_or_string_keeps_the_extension_only() -> None:
    schema = structural_schema(Thing)
    assert schema["properties"]["spec"]["properties"]["both"] == {"x-kubernetes-int-or-string": True}
    assert schema["required"] == ["spec"]
