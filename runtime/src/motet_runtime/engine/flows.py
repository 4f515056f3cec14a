"""Waiting sequences, a queue for each adapter, served so that no adapter starves because others are busy. Imports no
torch.

Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", arXiv 2401.00588): every adapter, and
the base, has a count of tokens that were computed for it; who has the least goes first. Who begins to wait gets at
least the least count of those that wait, so that nobody saves up a claim while away. A higher count is kept while its
owner is away, so that many adapters which come again and again, with one request each, do not go before a busy one for
ever.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from motet_api.identity import AdapterId
from motet_runtime.engine.sequence import Sequence

FlowKey = AdapterId | None


@dataclass(slots=True)
class Flow:
    """One adapter's waiting sequences. `passed_over` counts steps in which its head could get no slot."""

    key: FlowKey
    served: int = 0
    running: int = 0
    passed_over: int = 0
    waiting: deque[Sequence] = field(default_factory=deque)


class Flows:
    """All flows that have a sequence waiting or running, or a count that is worth remembering."""

    def __init__(self) -> None:
        self._flows: dict[FlowKey, Flow] = {}
        self._latest: Flow | None = None
        self._waiting = 0

    def __len__(self) -> int:
        """Sequences that wait."""
        return self._waiting

    def in_turn(self) -> list[Flow]:
        """Flows with somebody waiting, the least served first; of equals who came first."""
        return sorted((flow for flow in self._flows.values() if flow.waiting), key=lambda flow: flow.served)

    def all_waiting(self) -> Iterable[Sequence]:
        """Every waiting sequence."""
        return [sequence for flow in self._flows.values() for sequence in flow.waiting]

    def enqueue(self, sequence: Sequence) -> None:
        """A new sequence waits."""
        key = _key(sequence)
        flow = self._flows.get(key)
        if flow is None or not flow.waiting:
            flow = self._begins_to_wait(key)
        flow.waiting.append(sequence)
        self._waiting += 1

    def admit(self, flow: Flow) -> Sequence:
        """The flow's first sequence begins to run."""
        sequence = flow.waiting.popleft()
        flow.running += 1
        flow.passed_over = 0
        self._latest = flow
        self._waiting -= 1
        return sequence

    def put_back(self, sequence: Sequence) -> None:
        """A running sequence was preempted: it waits again, before all others of its flow."""
        flow = self._flows[_key(sequence)]
        flow.waiting.appendleft(sequence)
        flow.running -= 1
        self._waiting += 1

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """So many tokens are computed for this running sequence."""
        self._flows[_key(sequence)].served += tokens

    def ended(self, sequence: Sequence) -> None:
        """A running sequence ended."""
        self._flows[_key(sequence)].running -= 1

    def withdraw(self, sequence: Sequence) -> bool:
        """A waiting sequence is withdrawn; False if it does not wait."""
        flow = self._flows.get(_key(sequence))
        if flow is None or sequence not in flow.waiting:
            return False
        flow.waiting.remove(sequence)
        self._waiting -= 1
        return True

    def _begins_to_wait(self, key: FlowKey) -> Flow:
        """The flow of a key that has nobody waiting, last among equals. Forgets flows that a new one would equal."""
        waiting = [flow.served for flow in self._flows.values() if flow.waiting]
        floor = min(waiting) if waiting else self._latest.served if self._latest else 0
        flow = self._flows.pop(key, None) or Flow(key)
        flow.served, flow.passed_over = max(flow.served, floor), 0
        busy = (other for other in self._flows.values() if other.waiting or other.running or other.served > floor)
        self._flows = {other.key: other for other in busy}
        self._flows[key] = flow
        return flow


def _key(sequence: Sequence) -> FlowKey:
    return sequence.adapter.id if sequence.adapter else None
