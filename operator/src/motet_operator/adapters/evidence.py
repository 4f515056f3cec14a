"""What the gateways have seen of an adapter's versions, put together, and held against a rollout's limits. Pure.

Invariant: what no gateway has said is unknown. Too few requests, or a gateway that did not answer, never passes a limit
and never breaks one by itself; requests that were seen do count, whoever else is silent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from motet_api.loraadapter import RolloutLimits
from motet_api.wire import LATENCY_BOUNDS_MS, AdapterOutcome, VersionOutcome

_NO_REQUESTS: Final = VersionOutcome(version="")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sums over the gateways since a moment. `complete` says whether every gateway has answered."""

    complete: bool
    versions: Mapping[str, VersionOutcome]

    def of(self, version: str) -> VersionOutcome:
        """What is known of one version; zeros if no gateway has seen it."""
        return self.versions.get(version, _NO_REQUESTS)


def merge(outcomes: Iterable[AdapterOutcome | None]) -> Evidence:
    """The sums of what each gateway answered; None stands for one that did not."""
    complete, sums = True, dict[str, VersionOutcome]()
    for outcome in outcomes:
        if outcome is None:
            complete = False
            continue
        for seen in outcome.versions:
            known = sums.get(seen.version)
            sums[seen.version] = seen if known is None else _sum(known, seen)
    return Evidence(complete, sums)


def breach(limits: RolloutLimits, seen: VersionOutcome) -> str:
    """Which limit a version has passed, in words; empty if none, as far as there are enough requests to say."""
    enough = limits.min_requests
    if limits.error_percent is not None and seen.requests >= enough:
        failing = 100 * seen.errors / seen.requests
        if failing > limits.error_percent:
            return f"{failing:.3g}% of {seen.requests} requests failed, errorPercent is {limits.error_percent}"
    if limits.p95_latency_milliseconds is not None and sum(seen.latency) >= enough:
        p95 = quantile(seen.latency, 0.95)
        if p95 > limits.p95_latency_milliseconds:
            return f"p95 latency is {p95:.0f} ms, p95LatencyMilliseconds is {limits.p95_latency_milliseconds}"
    if limits.agreement_percent is not None and seen.compared >= enough:
        agreeing = 100 * seen.agreed / seen.compared
        if agreeing < limits.agreement_percent:
            return (
                f"{agreeing:.3g}% of {seen.compared} mirrored requests had the current version's answer, "
                f"agreementPercent is {limits.agreement_percent}"
            )
    if limits.score_drift_percent is not None and seen.scored >= enough:
        drift = 100 * seen.drift_sum / seen.scored
        if drift > limits.score_drift_percent:
            return (
                f"label probabilities drift by {drift:.3g} points over {seen.scored} requests, "
                f"scoreDriftPercent is {limits.score_drift_percent}"
            )
    return ""


def missing(limits: RolloutLimits, seen: VersionOutcome, *, comparable: bool) -> str:
    """What is still to be seen of a version before the limits can be judged; empty if nothing is.

    `comparable`: whether other versions still get requests, of which copies can be compared.
    """
    wanted = {"requests": seen.requests}
    if comparable and limits.agreement_percent is not None:
        wanted["mirrored requests"] = seen.compared
    if comparable and limits.score_drift_percent is not None:
        wanted["scored requests"] = seen.scored
    return ", ".join(
        f"{limits.min_requests - count} more {name}" for name, count in wanted.items() if count < limits.min_requests
    )


def quantile(counts: Sequence[int], share: float) -> float:
    """A quantile of a latency histogram (counts by `LATENCY_BOUNDS_MS`), in milliseconds, linear within a bucket.

    What lies above the last bound counts as twice that bound: long, and finite.
    """
    bounds = (0, *LATENCY_BOUNDS_MS, 2 * LATENCY_BOUNDS_MS[-1])
    rank = share * sum(counts)
    below = 0
    for index, (count, total) in enumerate(zip(counts, accumulate(counts), strict=True)):
        if count and total >= rank:
            return bounds[index] + (bounds[index + 1] - bounds[index]) * max(rank - below, 0) / count
        below = total
    return 0.0


def _sum(one: VersionOutcome, other: VersionOutcome) -> VersionOutcome:
    longest = max(len(one.latency), len(other.latency))
    return VersionOutcome(
        version=one.version,
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        latency=[sum(pair) for pair in zip(_padded(one, longest), _padded(other, longest), strict=True)],
        compared=one.compared + other.compared,
        agreed=one.agreed + other.agreed,
        scored=one.scored + other.scored,
        drift_sum=one.drift_sum + other.drift_sum,
        in_flight=one.in_flight + other.in_flight,
    )


def _padded(outcome: VersionOutcome, length: int) -> list[int]:
    return outcome.latency + [0] * (length - len(outcome.latency))
