"""Conditions as gauges: as they are now, gone with the object, and never more than is good."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from motet_operator.keys import Kind
from motet_operator.kube.index import Index
from motet_operator.running.condition_metrics import ConditionCollector
from tests.operator.factories import raw_adapter, raw_model


def status(**conditions: str) -> dict[str, Any]:
    return {
        "conditions": [
            {
                "type": kind,
                "status": value,
                "reason": "Any",
                "message": "",
                "lastTransitionTime": "2026-11-24T10:00:00Z",
            }
            for kind, value in conditions.items()
        ]
    }


def lines(index: Index, leads: bool = True, limit: int = 100) -> list[str]:
    registry = CollectorRegistry()
    registry.register(ConditionCollector(index, lambda: leads, limit))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


@pytest.fixture
def index() -> Index:
    made = Index()
    made.put(Kind.MODEL_DEPLOYMENT, raw_model(status=status(Ready="False", Available="True")))
    made.put(Kind.LORA_ADAPTER, raw_adapter("voice", status=status(Ready="Unknown")))
    made.put(Kind.LORA_ADAPTER, raw_adapter("new"))
    return made


def test_one_series_for_each_condition_with_its_status(index: Index) -> None:
    assert lines(index) == [
        'motet_condition{kind="ModelDeployment",name="llama",namespace="speech",status="False",type="Ready"} 1.0',
        'motet_condition{kind="ModelDeployment",name="llama",namespace="speech",status="True",type="Available"} 1.0',
        'motet_condition{kind="LoraAdapter",name="voice",namespace="speech",status="Unknown",type="Ready"} 1.0',
        'motet_condition_objects_left_out{kind="ModelDeployment"} 0.0',
        'motet_condition_objects_left_out{kind="LoraAdapter"} 0.0',
    ]


def test_an_object_that_is_gone_has_none(index: Index) -> None:
    index.remove(Kind.LORA_ADAPTER, raw_adapter("voice"))
    assert not [line for line in lines(index) if "voice" in line]


def test_objects_beyond_the_limit_are_counted(index: Index) -> None:
    found = lines(index, limit=2)
    assert len([line for line in found if line.startswith("motet_condition{")]) == 2
    assert 'motet_condition_objects_left_out{kind="LoraAdapter"} 1.0' in found


def test_a_standby_shows_none(index: Index) -> None:
    assert not [line for line in lines(index, leads=False) if line.startswith("motet_condition{")]
