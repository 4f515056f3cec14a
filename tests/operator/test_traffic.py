"""Which split is in effect while a rollout is under way or is taken back, row by row."""

from dataclasses import dataclass, field

import pytest

from motet_api.loraadapter import TrafficTarget
from motet_api.reasons import AdapterReason, Reason
from motet_operator.adapters.residency import Standing
from motet_operator.adapters.traffic import effective_split
from motet_operator.conditions import no, unknown, yes

HERE = Standing(yes(AdapterReason.RESIDENT, ""), ready_on=2, pods=2)
LOADING = Standing(no(AdapterReason.LOADING, ""), pods=2)
PARTLY = Standing(no(AdapterReason.LOADING, ""), ready_on=1, pods=2)
SILENT = Standing(unknown(Reason.POD_UNREACHABLE, ""), ready_on=1, pods=2)
LOST = Standing(unknown(Reason.POD_UNREACHABLE, ""), ready_on=0, pods=2)
BROKEN = Standing(no(AdapterReason.CORRUPT_WEIGHTS, ""), pods=2, failed_on=2, failed=True, final=True)
REFUSED = Standing(no(AdapterReason.DIGEST_MISMATCH, ""), failed=True, final=True)


def split(**weights: int) -> tuple[TrafficTarget, ...]:
    return tuple(TrafficTarget(version=name, weight=weight) for name, weight in weights.items())


@dataclass(frozen=True)
class Row:
    """A rollout that gives v8 more, on its way from `origin`."""

    wanted: tuple[TrafficTarget, ...]
    in_effect: tuple[TrafficTarget, ...]
    expected: tuple[TrafficTarget, ...]
    standings: dict[str, Standing] = field(default_factory=dict)


ON_THE_WAY: dict[str, Row] = {
    "all are resident": Row(split(v7=70, v8=30), split(v7=1), split(v7=70, v8=30)),
    "the only other one is refused": Row(
        split(v7=70, v8=30), split(v7=70, v8=30), split(v7=70, v8=30), {"v7": REFUSED}
    ),
    "the only other one is broken": Row(split(v7=40, v8=60), split(v7=70, v8=30), split(v7=70, v8=30), {"v7": BROKEN}),
    "one of two others is broken": Row(
        split(v6=35, v7=35, v8=30), split(v6=35, v7=35, v8=30), split(v6=70_000, v8=30_000), {"v7": BROKEN}
    ),
    "the one that gains is broken": Row(split(v7=70, v8=30), split(v7=1), split(v7=70), {"v8": BROKEN}),
    "a pod is silent": Row(split(v7=40, v8=60), split(v7=70, v8=30), split(v7=70, v8=30), {"v7": SILENT}),
}


@pytest.mark.parametrize("row", ON_THE_WAY.values(), ids=ON_THE_WAY)
def test_nothing_gives_a_version_more_than_its_step(row: Row) -> None:
    standings = dict.fromkeys(("v6", "v7", "v8"), HERE) | row.standings
    assert effective_split(row.wanted, row.in_effect, standings, ["v8"]).targets == row.expected


def test_without_a_rollout_the_others_take_the_share_of_a_broken_version() -> None:
    found = effective_split(split(v7=70, v8=30), split(v7=70, v8=30), {"v7": BROKEN, "v8": HERE})
    assert found.targets == split(v8=30)


MIXED = split(v7=70, v8=30)
BACK: dict[str, Row] = {
    "all are resident": Row(split(v7=1), MIXED, split(v7=1)),
    "a pod is silent": Row(split(v7=1), MIXED, split(v7=1), {"v7": SILENT, "v8": SILENT}),
    "every pod is silent": Row(split(v7=1), MIXED, split(v7=1), {"v7": LOST, "v8": LOST}),
    "a pod has lost it": Row(split(v7=1), MIXED, split(v7=1), {"v7": PARTLY}),
    "it has no share left, and is on a pod that answers": Row(
        split(v7=1), split(v8=1), split(v7=1), {"v7": SILENT, "v8": SILENT}
    ),
    "it has no share left, and is on no pod that answers": Row(
        split(v7=1), split(v8=1), split(v8=1), {"v7": LOST, "v8": SILENT}
    ),
    "it has no share left and is loading everywhere": Row(split(v7=1), split(v8=1), split(v8=1), {"v7": LOADING}),
    "it is broken everywhere": Row(split(v7=1), MIXED, MIXED, {"v7": BROKEN}),
    "one of two serves": Row(split(v6=1, v7=1), split(v6=35, v8=65), split(v6=1), {"v7": LOADING}),
    "the one that gained had a share": Row(split(v7=90, v8=10), MIXED, split(v7=90, v8=10), {"v7": SILENT}),
    "the one that gained is all that is left": Row(split(v7=90, v8=10), MIXED, MIXED, {"v7": BROKEN}),
}


@pytest.mark.parametrize("row", BACK.values(), ids=BACK)
def test_what_was_gained_is_lost_at_once(row: Row) -> None:
    standings = dict.fromkeys(("v6", "v7", "v8"), HERE) | row.standings
    assert effective_split(row.wanted, row.in_effect, standings, ["v8"], back=True).targets == row.expected


def test_going_on_waits_for_a_silent_pod() -> None:
    standings = {"v7": SILENT, "v8": SILENT}
    assert effective_split(split(v7=1), MIXED, standings, ["v8"]).targets == MIXED
