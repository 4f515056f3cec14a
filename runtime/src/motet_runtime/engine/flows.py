"""Waiting sequences, a queue for each adapter, served so that no adapter starves because others are busy. Imports no
torch.

Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", arXiv 2401.00588): every adapter, and
the base, has a count of tokens that were computed for it; who has the least goes first. Who comes anew begins at the
least count of those that are active, so that nobody saves up a claim while away.
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
    """All flows that have a sequence waiting or running."""

    def __init__(self) -> None:
        self._flows: dict[FlowKey, Flow] = {}
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
        self._flow(sequence).waiting.append(sequence)
        self._waiting += 1

    def admit(self, flow: Flow) -> Sequence:
        """The flow's first sequence begins to run."""
        sequence = flow.waiting.popleft()
        flow.running += 1
        flow.passed_over = 0
        self._waiting -= 1
        return sequence

    def put_back(self, sequence: Sequence) -> None:
        """A running sequence was preempted: it waits again, before all others of its flow."""
        flow = self._flow(sequence)
        flow.waiting.appendleft(sequence)
        flow.running -= 1
        self._waiting += 1

    def charge(self, sequence: Sequence, tokens: int) -> None:
        """So many tokens are computed for this running sequence."""
        self._flow(sequence).served += tokens

    def ended(self, sequence: Sequence) -> None:
        """A running sequence ended."""
        self._flow(sequence).running -= 1
        self._drop_idle(sequence)

    def withdraw(self, sequence: Sequence) -> bool:
        """A waiting sequence is withdrawn; False if it does not wait."""
        flow = self._flows.get(_key(sequence))
        if flow is None or sequence not in flow.waiting:
            return False
        flow.waiting.remove(sequence)
        self._waiting -= 1
        self._drop_idle(sequence)
        return True

    def _flow(self, sequence: Sequence) -> Flow:
        key = _key(sequence)
        flow = self._flows.get(key)
        if flow is None:
            floor = min((other.served for other in self._flows.values()), default=0)
            flow = self._flows[key] = Flow(key, floor)
        return flow

    def _drop_idle(self, sequence: Sequence) -> None:
        flow = self._flows[_key(sequence)]
        if not flow.waiting and not flow.running:
            del self._flows[flow.key]


def _key(sequence: Sequence) -> FlowKey:
    return sequence.adapter.id if sequence.adapter else None
