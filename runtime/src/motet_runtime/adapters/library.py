"""The adapters that this process can serve, in the tiers below the engine's slots: host memory, then local disk.

An adapter in a slot is read from here by one copy. What does not fit host memory any more stays on disk; what the disk
had to give up as well is fetched and verified again by whoever asks (`loading.py`).
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping

from motet_api.identity import AdapterId, Digest
from motet_runtime.adapters.artifact import VerifiedAdapter
from motet_runtime.adapters.flat_file import FlatAdapter
from motet_runtime.adapters.flat_store import FlatStore
from motet_runtime.engine.sequence import Adapter


class AdapterLibrary:
    """Registered adapters and their weights. Used from any thread.

    `host_bytes`: most bytes of weights held in host memory. With `pin` they are copied to memory that a GPU reads
    directly; without, they are the file's own pages.
    """

    def __init__(self, store: FlatStore, host_bytes: int, pin: bool) -> None:
        self._store = store
        self._host_bytes = host_bytes
        self._pin = pin
        self._lock = threading.Lock()
        self._adapters: dict[AdapterId, Adapter] = {}
        self._host: OrderedDict[Digest, FlatAdapter] = OrderedDict()
        self._held_bytes = 0
        self._sizes: dict[Digest, int] = {}

    @property
    def used_bytes(self) -> int:
        """Bytes that the registered adapters take below the slots, each content once, wherever it lies just now."""
        with self._lock:
            return sum(self._sizes.values())

    @property
    def adapters(self) -> Mapping[AdapterId, Adapter]:
        """What is registered."""
        return self._adapters

    def register(self, adapter_id: AdapterId, verified: VerifiedAdapter) -> Adapter:
        """Convert a verified adapter to its file, unless that is there, and make it known.

        Raises:
            AdapterError: its weights are not finite in the base's type.
        """
        artifact = verified.artifact
        weights = self.restore(verified)
        adapter = Adapter(
            adapter_id,
            artifact.digest,
            artifact.rank,
            artifact.invocation,
            artifact.head.labels if artifact.head else 0,
        )
        with self._lock:
            self._adapters[adapter_id] = adapter
            self._sizes[artifact.digest] = weights.nbytes
        return adapter

    def restore(self, verified: VerifiedAdapter) -> FlatAdapter:
        """Write an adapter's file, for which others' may have to go, unless it is there; returns the weights.

        Raises:
            AdapterError: a weight is not finite in the base's type.
            OSError: the disk is full, or cannot be written.
        """
        return self._put(verified.artifact.digest, self._store.write(verified))

    def weights(self, digest: Digest) -> FlatAdapter:
        """An adapter's weights, from host memory or from disk.

        Raises:
            FileNotFoundError: neither has them any more.
        """
        with self._lock:
            found = self._host.get(digest)
            if found is not None:
                self._host.move_to_end(digest)
                return found
        return self._put(digest, self._store.open(digest))

    def remove(self, adapter_id: AdapterId) -> Digest | None:
        """Forget an adapter; returns its digest if no other id has the same content. Its file stays, as a cache."""
        with self._lock:
            adapter = self._adapters.pop(adapter_id, None)
            if adapter is None or any(other.digest == adapter.digest for other in self._adapters.values()):
                return None
            self._sizes.pop(adapter.digest, None)
            weights = self._host.pop(adapter.digest, None)
            if weights is not None:
                self._held_bytes -= weights.nbytes
            return adapter.digest

    def _put(self, digest: Digest, weights: FlatAdapter) -> FlatAdapter:
        if self._pin:
            weights = FlatAdapter(
                {name: (a.pin_memory(), b.pin_memory()) for name, (a, b) in weights.modules.items()},
                weights.head,
                weights.nbytes,
            )
        with self._lock:
            if digest in self._host:
                return self._host[digest]
            self._host[digest] = weights
            self._held_bytes += weights.nbytes
            while self._held_bytes > self._host_bytes and len(self._host) > 1:
                _, oldest = self._host.popitem(last=False)
                self._held_bytes -= oldest.nbytes
        return weights
