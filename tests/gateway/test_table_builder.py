"""Tables made of changes: equal to those made in one go, and never touched again."""

import copy
import dataclasses

from motet_gateway.table import ObjectKey, Share
from motet_gateway.table_builder import TableBuilder, build_table
from tests.gateway.factories import TINY, adapter, model, pod

CHURN = adapter(versions=("v1", "v2"))
MOVED = dataclasses.replace(CHURN, models={"v2": ObjectKey("default", "next")}, traffic=(Share("v2", 1),))
TOPIC = adapter("topic")


def filled() -> TableBuilder:
    builder = TableBuilder()
    builder.put_model(model())
    builder.put_adapter(CHURN)
    builder.put_adapter(TOPIC)
    builder.set_pods([pod("b"), pod("a"), pod("lost", of=ObjectKey("default", "gone"))])
    return builder


def test_changes_make_the_table_that_is_made_in_one_go() -> None:
    builder = filled()
    assert builder.table() == build_table([model()], [TOPIC, CHURN], [pod("a"), pod("b")])
    assert [each.key.name for each in builder.table().pods[TINY]] == ["a", "b"]
    builder.put_adapter(MOVED)
    builder.remove_adapter(TOPIC.key)
    builder.put_adapter(adapter(namespace="blue"))
    builder.put_model(model("next"))
    assert builder.table() == build_table(
        [model(), model("next")], [adapter(namespace="blue"), MOVED], [pod("a"), pod("b")]
    )
    assert set(builder.table().expected[ObjectKey("default", "next")]) == {"churn@v2"}
    builder.remove_adapter(MOVED.key)
    builder.remove_adapter(ObjectKey("blue", "churn"))
    builder.remove_model(TINY)
    assert builder.table() == build_table([model("next")], [], [])


def test_a_table_that_was_given_away_stays_as_it_was() -> None:
    builder = filled()
    before = builder.table()
    kept = copy.deepcopy(before)
    builder.put_adapter(MOVED)
    builder.remove_adapter(TOPIC.key)
    builder.remove_model(TINY)
    builder.set_pods([])
    builder.table()
    assert before == kept


def test_nothing_new_is_the_same_table() -> None:
    builder = filled()
    before = builder.table()
    builder.put_adapter(adapter(versions=("v1", "v2")))
    builder.put_model(model())
    builder.remove_adapter(ObjectKey("default", "never-seen"))
    assert builder.table() is before


def test_what_one_models_pods_should_hold_is_shared_while_it_stays() -> None:
    builder = filled()
    before = builder.table()
    builder.put_adapter(adapter("far", of="other"))
    after = builder.table()
    assert after.expected[TINY] is before.expected[TINY]
    builder.put_adapter(adapter("near"))
    assert builder.table().expected[TINY] is not before.expected[TINY]
