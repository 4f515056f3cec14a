"""KV blocks: who holds which, and which of them still hold a prefix that somebody may ask for again. Imports no torch.

Invariant: every block is in exactly one place: free (no content worth keeping), held (one or more sequences count on
it), or cached (nobody holds it, but its content has a key; the least recently used of these is given away first). A key
names a block's whole past: the tokens of all blocks before it, its own, and where an adapter acts on them the adapter's
digest. So base and activated LoRAs share a prefix up to the invocation, and no version ever sees another's.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from itertools import pairwise
from typing import Final, NewType

from motet_runtime.engine.sequence import Sequence

BlockKey = NewType("BlockKey", bytes)
_ROOT: Final = BlockKey(b"")
_FREE, _CACHED, _HELD = range(3)
_CACHED_AS_FREE: Final = bytes.maketrans(bytes([_CACHED]), bytes([_FREE]))
_WORTH_A_SEARCH: Final = 16
"""Blocks from which on neighbours are looked for."""


class BlockPool:
    """`count` blocks of `block_size` tokens."""

    def __init__(self, count: int, block_size: int) -> None:
        if count < 1 or block_size < 1:
            raise ValueError("a pool needs at least one block of at least one token")
        self.count = count
        self.block_size = block_size
        self.looked_up_tokens = 0
        self.hit_tokens = 0
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._places = bytearray(count)  # of each block, where it is: _FREE, _CACHED or _HELD
        self._holders = [0] * count
        self._keys: list[BlockKey | None] = [None] * count
        self._by_key: dict[BlockKey, int] = {}
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that can be allocated, cached ones included."""
        return len(self._free) + len(self._cached)

    @property
    def held(self) -> int:
        """Blocks that sequences hold."""
        return self.count - self.available

    @property
    def cached(self) -> int:
        """Blocks that nobody holds and that keep a prefix."""
        return len(self._cached)

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks, neighbours where possible: attention reads those in one go. None if there are too few."""
        if count > self.available:
            return None
        blocks = self._neighbours(count) if count >= _WORTH_A_SEARCH else []
        for block in blocks:
            if self._places[block] == _FREE:
                del self._free[block]
            else:
                del self._cached[block]
                self._forget_key(block)
        while len(blocks) < count:
            if self._free:
                block, _ = self._free.popitem(last=False)
            else:
                block, _ = self._cached.popitem(last=False)
                self._forget_key(block)
            blocks.append(block)
        blocks.sort()
        for block in blocks:
            self._holders[block] = 1
            self._places[block] = _HELD
        return blocks

    def _neighbours(self, count: int) -> list[int]:
        """So many free blocks side by side, else such as nobody holds; empty if there are none.

        The second forgets prefixes that are not the least recently used: for a long prompt, whose past would otherwise
        lie in pieces and be put together in every step, that is worth it.
        """
        for places in (self._places, self._places.translate(_CACHED_AS_FREE)):
            first = places.find(bytes(count))
            if first >= 0:
                return list(range(first, first + count))
        return []

    def match(self, keys: Iterable[BlockKey]) -> list[int]:
        """The blocks of the longest known prefix; nothing is held by this."""
        found = []
        for key in keys:
            block = self._by_key.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def hold(self, blocks: Iterable[int]) -> None:
        """Count on blocks that `match` found."""
        for block in blocks:
            if self._holders[block] == 0:
                del self._cached[block]
                self._places[block] = _HELD
            self._holders[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Give back a sequence's blocks, in order of position.

        The last are the first to be given away again: a prefix is worth more than what follows it.
        """
        for block in reversed(list(blocks)):
            self._holders[block] -= 1
            if self._holders[block] > 0:
                continue
            if self._keys[block] is None:
                self._free[block] = None
                self._places[block] = _FREE
            else:
                self._cached[block] = None
                self._places[block] = _CACHED
        if not self._cached and len(self._free) == self.count:
            # Nothing is held: put the blocks in order again, so that long runs of neighbours come back.
            self._free = OrderedDict.fromkeys(range(self.count))

    def register(self, block: int, key: BlockKey) -> None:
        """A held block is full and computed: others may share it. The first of two equal blocks stays the known one."""
        if self._keys[block] is None and key not in self._by_key:
            self._keys[block] = key
            self._by_key[key] = block

    def count_lookup(self, tokens: int, hit: int) -> None:
        """Note that a prompt of so many tokens found so many of them."""
        self.looked_up_tokens += tokens
        self.hit_tokens += hit

    def _forget_key(self, block: int) -> None:
        key = self._keys[block]
        assert key is not None
        del self._by_key[key]
        self._keys[block] = None

    def check(self) -> None:
        """Raise AssertionError unless the invariant holds (for tests)."""
        held = {block for block in range(self.count) if self._holders[block] > 0}
        free, cached = set(self._free), set(self._cached)
        assert len(free) == len(self._free)
        assert not (held & free or held & cached or free & cached)
        assert held | free | cached == set(range(self.count))
        assert all(
            self._places[block] == (_FREE, _CACHED, _HELD)[(block in cached) + 2 * (block in held)]
            for block in range(self.count)
        )
        assert all(self._keys[block] is None for block in free)
        assert {self._keys[block] for block in cached} <= set(self._by_key)
        assert all(self._keys[block] == key for key, block in self._by_key.items())


class PrefixKeys:
    """The keys of one sequence's full blocks, made as they are asked for."""

    def __init__(self, sequence: Sequence, block_size: int) -> None:
        self._sequence = sequence
        self._block_size = block_size
        self._keys: list[BlockKey] = []

    def upto(self, tokens: int) -> list[BlockKey]:
        """Keys of the full blocks among the first `tokens` tokens."""
        full = tokens // self._block_size
        while len(self._keys) < full:
            self._keys.append(self._key(len(self._keys)))
        return self._keys[:full]

    def _key(self, index: int) -> BlockKey:
        sequence, size = self._sequence, self._block_size
        start = index * size
        content = blake2b(self._keys[-1] if self._keys else _ROOT, digest_size=16)
        content.update(array("q", sequence.tokens(start, size)).tobytes())
        if sequence.adapter is not None and start + size > sequence.acts_from:
            # Where the adapter begins to act is part of the content: an invocation may occur twice.
            content.update(f"{sequence.adapter.digest}@{max(0, sequence.acts_from - start)}".encode())
        return BlockKey(content.digest())


def runs(blocks: Iterable[int], block_size: int) -> list[tuple[int, int]]:
    """Maximal runs of neighbouring blocks, as (first slot, slot after the last)."""
    numbers = list(blocks)
    if not numbers:
        return []
    breaks = [index + 1 for index, (one, other) in enumerate(pairwise(numbers)) if other != one + 1]
    edges = [0, *breaks, len(numbers)]
    return [(numbers[begin] * block_size, (numbers[end - 1] + 1) * block_size) for begin, end in pairwise(edges)]
