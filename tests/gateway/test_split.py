"""Shares, stickiness, and how few users a change moves."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet_gateway.split import choose_version, unit_interval
from motet_gateway.table import Share

USERS = [f"user-{number}" for number in range(4000)]
WEIGHTS = st.dictionaries(st.sampled_from(["v1", "v2", "v3", "v4"]), st.integers(0, 1000), min_size=1)


def shares(**weights: int) -> list[Share]:
    return [Share(version, weight) for version, weight in weights.items()]


def assigned(split: list[Share], users: list[str] = USERS) -> dict[str, str]:
    return {user: choose_version("default/churn", user, split) for user in users}


@pytest.mark.parametrize(
    "weights", [{"v1": 1}, {"v1": 90, "v2": 10}, {"v1": 1, "v2": 1, "v3": 2}, {"v1": 999, "v2": 1}]
)
def test_shares_are_those_of_the_weights(weights: dict[str, int]) -> None:
    counts = Counter(assigned(shares(**weights)).values())
    for version, weight in weights.items():
        wanted = weight / sum(weights.values())
        # Four standard deviations of the binomial.
        tolerance = 4 * (wanted * (1 - wanted) / len(USERS)) ** 0.5
        assert counts[version] / len(USERS) == pytest.approx(wanted, abs=tolerance)


@given(weights=WEIGHTS.filter(lambda weights: any(weights.values())), user=st.text())
def test_a_user_keeps_the_version_and_never_gets_one_without_weight(weights: dict[str, int], user: str) -> None:
    split = shares(**weights)
    chosen = choose_version("default/churn", user, split)
    assert weights[chosen] > 0
    assert choose_version("default/churn", user, split[::-1]) == chosen
    assert choose_version("default/churn", user, [Share(s.version, s.weight * 3) for s in split]) == chosen


@settings(max_examples=20, deadline=None)
@given(first=st.integers(1, 99), second=st.integers(1, 99))
def test_a_shift_moves_only_the_difference(first: int, second: int) -> None:
    users = USERS[:1000]
    before = assigned(shares(v1=first, v2=100 - first), users)
    after = assigned(shares(v1=second, v2=100 - second), users)
    moved = {(before[user], after[user]) for user in users if before[user] != after[user]}
    # All who move, move to the version that grew; so no more move than the shares differ by.
    assert moved <= ({("v1", "v2")} if second < first else {("v2", "v1")})


def test_90_10_to_80_20_moves_a_tenth() -> None:
    before, after = assigned(shares(v1=90, v2=10)), assigned(shares(v1=80, v2=20))
    moved = sum(before[user] != after[user] for user in USERS)
    assert moved / len(USERS) == pytest.approx(0.1, abs=0.02)


def test_a_version_that_drops_out_moves_only_its_own_users() -> None:
    before, after = assigned(shares(v1=50, v2=30, v3=20)), assigned(shares(v1=50, v3=20))
    assert all(after[user] == version for user, version in before.items() if version != "v2")


def test_adapters_split_the_same_users_differently() -> None:
    split = shares(v1=1, v2=1)
    other = {user: choose_version("default/topic", user, split) for user in USERS}
    both = Counter((one, other[user]) for user, one in assigned(split).items())
    assert min(both.values()) > len(USERS) / 4 * 0.8


def test_every_process_gives_the_same_answer() -> None:
    """Python's own hash differs from process to process; the split must not."""
    code = "from motet_gateway.split import unit_interval; print(repr(unit_interval('default/churn', 'user-1', 'v1')))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {repr(unit_interval("default/churn", "user-1", "v1"))}


@given(st.text(), st.text(), st.text())
def test_the_interval_is_open_and_its_parts_do_not_run_together(one: str, two: str, three: str) -> None:
    assert 0 < unit_interval(one, two, three) < 1
    if two:
        assert unit_interval(one, two) != unit_interval(one + two, "")
