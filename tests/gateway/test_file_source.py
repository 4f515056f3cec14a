"""The table from a file: what it says, what is refused, and that a wrong edit changes nothing."""

from pathlib import Path

import pytest

from motet_api.loraadapter import Residency
from motet_api.modeldeployment import EngineType
from motet_gateway.file_source import FileSource, TableFileError, read_table
from motet_gateway.routing import Routing
from motet_gateway.table import Mirror, ObjectKey, Share

GOOD = """
models:
  - name: tiny
    queue: {maxRequests: 7, maxWaitSeconds: 3}
    pods: [{name: a, address: "127.0.0.1:8000"}]
adapters:
  - {name: topic, model: tiny, versions: [v1]}
  - {name: churn, model: tiny, versions: [v1, v2], traffic: [{version: v1, weight: 90}, {version: v2, weight: 10}]}
"""


def write(path: Path, text: str) -> Path:
    file = path / "table.yaml"
    file.write_text(text)
    return file


def test_a_file_becomes_a_table(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, GOOD))
    model = table.models[ObjectKey("default", "tiny")]
    assert (model.max_requests, model.max_wait_seconds) == (7, 3)
    assert [(pod.key.name, pod.address, pod.ready) for pod in table.all_pods()] == [("a", "127.0.0.1:8000", True)]
    assert table.adapters[ObjectKey("default", "topic")].traffic == (Share("v1", 1),)
    assert table.adapters[ObjectKey("default", "churn")].traffic == (Share("v1", 90), Share("v2", 10))


def test_the_default_namespace_is_in_the_table(tmp_path: Path) -> None:
    routing = Routing()
    FileSource(write(tmp_path, GOOD), routing, lambda: None, "speech").refresh()
    assert routing.table.default_namespace == "speech"
    assert read_table(write(tmp_path, GOOD)).default_namespace == ""


def test_what_may_be_left_out_and_is_not(tmp_path: Path) -> None:
    text = """
models:
  - {name: big, namespace: models, engine: VLLM, pods: [{name: a, address: "h:1", reportsAt: "h:2"}]}
adapters:
  - name: churn
    model: big
    modelNamespace: models
    versions: [v1]
    mirror: [{version: v1, percent: 5}]
    residency: OnDemand
"""
    table = read_table(write(tmp_path, text))
    assert table.models[ObjectKey("models", "big")].engine is EngineType.VLLM
    assert [pod.reports_at for pod in table.all_pods()] == ["h:2"]
    churn = table.adapters[ObjectKey("default", "churn")]
    assert (churn.runtime_id("v1"), churn.mirror) == ("default/churn@v1", (Mirror("v1", 5),))
    assert churn.residency is Residency.ON_DEMAND


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [", "table.yaml"),
        ("models: [{name: tiny, podz: []}]", "podz"),
        ("models: [{name: Tiny}]", "models.0.name"),
        ("models: [{name: tiny, pods: [{name: a, address: nowhere}]}]", "address"),
        ("models: []\nadapters: [{name: a, model: tiny, versions: [v1, v2]}]", "traffic is required"),
        ("models: []\nadapters: [{name: a, model: m, versions: [v1], traffic: [{version: v2, weight: 1}]}]", "v2"),
        ("models: []\nadapters: [{name: a, model: m, versions: [v1], mirror: [{version: v2, percent: 1}]}]", "mirror"),
        ('models: [{name: m, engine: VLLM, pods: [{name: a, address: "h:1"}]}]', "reportsAt"),
        ("just text", "table.yaml"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TableFileError, match=said):
        read_table(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableFileError, match=r"nowhere\.yaml"):
        read_table(tmp_path / "nowhere.yaml")


def test_changes_are_followed_and_mistakes_change_nothing(tmp_path: Path) -> None:
    failures: list[int] = []
    routing = Routing()
    file = write(tmp_path, GOOD)
    source = FileSource(file, routing, lambda: failures.append(1))
    assert not routing.synced
    source.refresh()
    assert routing.synced
    assert len(routing.table.adapters) == 2
    first = routing.table
    source.refresh()
    assert routing.table is first
    write(tmp_path, "models: [")
    source.refresh()
    assert (routing.table, len(failures)) == (first, 1)
    write(tmp_path, "models: [{name: tiny}]")
    source.refresh()
    assert not routing.table.adapters
    file.unlink()
    source.refresh()
    assert len(routing.table.models) == 1
    assert len(failures) == 2
