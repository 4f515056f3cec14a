"""KV blocks are in one place at a time, the least recently used prefix goes first, and a key names the whole past."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet_runtime.engine.blocks import BlockKey, BlockPool, PrefixKeys, runs
from motet_runtime.engine.sequence import Adapter
from tests.runtime.engine_runs import adapter, sequence

SIZE = 4


def keys(prompt: list[int], acting: Adapter | None = None, acts_from: int | None = None) -> list[BlockKey]:
    one = sequence(1, prompt, adapter=acting)
    if acts_from is not None:
        one.acts_from = acts_from
    return PrefixKeys(one, SIZE).upto(len(prompt))


def key(number: int) -> BlockKey:
    return BlockKey(bytes([number]))


def cached(pool: BlockPool, *numbers: int) -> list[int]:
    """Blocks, one after the other, that were computed and are held by nobody."""
    blocks = pool.allocate(len(numbers))
    assert blocks is not None
    for block, number in zip(blocks, numbers, strict=True):
        pool.register(block, key(number))
    pool.release(blocks)
    return blocks


def test_blocks_are_given_once_in_ascending_order_and_not_beyond_their_number() -> None:
    pool = BlockPool(4, SIZE)
    assert pool.allocate(3) == [0, 1, 2]
    assert pool.allocate(2) is None
    assert (pool.held, pool.available) == (3, 1)
    pool.release([0, 1, 2])
    assert pool.allocate(4) == [0, 1, 2, 3]
    assert pool.allocate(0) == []
    pool.check()


@pytest.mark.parametrize(("count", "size"), [(0, 4), (4, 0)])
def test_an_empty_pool_is_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        BlockPool(count, size)


def test_a_prefix_is_found_up_to_the_first_block_that_is_missing() -> None:
    pool = BlockPool(8, SIZE)
    blocks = cached(pool, 1, 2, 3)
    assert pool.match([key(1), key(2), key(9), key(3)]) == blocks[:2]
    assert pool.match([key(9), key(1)]) == []
    assert (pool.cached, pool.held, pool.available) == (3, 0, 8)


def test_blocks_without_content_go_before_cached_ones_and_of_those_the_least_recently_used() -> None:
    pool = BlockPool(6, SIZE)
    old, new = cached(pool, 1, 2), cached(pool, 3, 4)
    pool.hold(old)  # used again
    pool.release(old)
    free = pool.allocate(2)
    assert free is not None and not set(free) & {*old, *new}
    assert pool.allocate(1) == [new[1]], "the end of a prefix goes before its beginning"
    assert pool.allocate(1) == [new[0]]
    assert pool.match([key(1), key(2)]) == old
    assert pool.match([key(3)]) == []
    pool.check()


def test_a_shared_block_is_free_when_its_last_holder_has_gone() -> None:
    pool = BlockPool(4, SIZE)
    blocks = cached(pool, 1)
    for _ in range(2):
        pool.hold(blocks)
    pool.release(blocks)
    assert (pool.held, pool.cached) == (1, 0)
    assert pool.allocate(4) is None, "a block that somebody holds is not given away"
    pool.release(blocks)
    assert (pool.held, pool.cached) == (0, 1)


def test_the_first_of_two_equal_blocks_stays_the_known_one() -> None:
    pool = BlockPool(2, SIZE)
    first, second = pool.allocate(2) or []
    pool.register(first, key(1))
    pool.register(second, key(1))
    pool.register(first, key(2))
    assert pool.match([key(1)]) == [first]
    assert pool.match([key(2)]) == []
    pool.release([first, second])
    assert pool.cached == 1
    pool.check()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_block_is_lost_or_given_twice(data: st.DataObject) -> None:
    pool = BlockPool(data.draw(st.integers(1, 12)), SIZE)
    held: list[list[int]] = []
    for _ in range(data.draw(st.integers(1, 40))):
        if held and data.draw(st.integers(0, 1)):
            pool.release(held.pop(data.draw(st.integers(0, len(held) - 1))))
        else:
            wanted = [key(number) for number in range(data.draw(st.integers(0, 5)))]
            shared = pool.match(wanted)
            pool.hold(shared)
            fresh = pool.allocate(data.draw(st.integers(0, 5)))
            if fresh is None:
                pool.release(shared)
                continue
            for block, name in zip(fresh, wanted[len(shared) :], strict=False):
                pool.register(block, name)
            held.append(shared + fresh)
        pool.check()
        assert pool.held == len({block for blocks in held for block in blocks})
    for blocks in held:
        pool.release(blocks)
    assert pool.held == 0
    pool.check()


def test_a_key_names_the_whole_past_of_a_full_block() -> None:
    one = keys([1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert len(one) == 2, "a block that is not full has none"
    assert keys([1, 2, 3, 4, 5, 6, 7, 8]) == one
    assert keys([0, 2, 3, 4, 5, 6, 7, 8])[1] != one[1], "the same tokens after others"
    assert keys([5, 6, 7, 8])[0] != one[1]


def test_no_version_shares_with_another_or_with_the_base() -> None:
    prompt = list(range(8))
    found = [keys(prompt), keys(prompt, adapter("a@1")), keys(prompt, adapter("a@2")), keys(prompt, adapter("b@1"))]
    for block in (0, 1):
        assert len({each[block] for each in found}) == len(found)
    assert keys(prompt, adapter("a@1")) == found[1]


def test_an_activated_lora_shares_what_lies_before_its_invocation() -> None:
    prompt = [*range(20, 30), 7, 7, 1, 2, 3, 4]
    base, one, other = keys(prompt), *(keys(prompt, adapter(name, invocation=(7, 7))) for name in ("a@1", "b@1"))
    assert base[:2] == one[:2] == other[:2]
    assert len({base[2], one[2], other[2]}) == 3, "the invocation is in this block"
    assert len({base[3], one[3], other[3]}) == 3


@pytest.mark.parametrize("places", [(4, 5), (4, 8), (3, 4), (0, 2)])
def test_the_same_tokens_computed_from_another_invocation_on_are_another_content(places: tuple[int, int]) -> None:
    acting, prompt = adapter("a@1", invocation=(7,)), [7] * 12
    one, other = (keys(prompt, acting, place) for place in places)
    before = min(places) // SIZE
    assert one[:before] == other[:before]
    assert not set(one[before:]) & set(other[before:])


def test_keys_reach_into_the_answer() -> None:
    one = sequence(1, [1, 2, 3])
    made = PrefixKeys(one, SIZE)
    assert made.upto(3) == []
    one.output += [4, 5, 6, 7, 8]
    assert made.upto(8) == keys([1, 2, 3, 4, 5, 6, 7, 8])


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [([], []), ([3], [(12, 16)]), ([3, 4, 5], [(12, 24)]), ([5, 4, 7, 8, 2], [(20, 24), (16, 20), (28, 36), (8, 12)])],
)
def test_neighbouring_blocks_make_one_run(blocks: list[int], expected: list[tuple[int, int]]) -> None:
    assert runs(blocks, SIZE) == expected


def test_a_long_prompt_gets_neighbours_even_where_prefixes_have_to_go_for_them() -> None:
    pool = BlockPool(100, 4)
    held = [block for _ in range(5) for block in pool.allocate(20) or []]
    assert held == list(range(100))
    for block in held:
        pool.register(block, BlockKey(str(block).encode()))
    pool.release([block for block in held if block not in (10, 60, 90)])
    assert pool.allocate(30) == list(range(11, 41))
    pool.check()
    assert pool.match([BlockKey(b"11")]) == [], "its content is not known any more"
    assert pool.match([BlockKey(b"41")]) == [41]
    scattered = pool.allocate(40)
    assert scattered is not None and len(set(scattered)) == 40, "where there are no 40 neighbours, any will do"
    pool.check()
