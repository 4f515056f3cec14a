"""What is deleted: never what is named, in use, or young; and room is made if there is any to make."""

from hypothesis import given
from hypothesis import strategies as st

from motet_api.identity import Digest
from motet_operator.store.collect import Blob, Held, plan

NOW, GRACE, KEEP = 10_000.0, 100.0, 1_000.0
names = st.sampled_from([f"b{number}" for number in range(8)])
digests = st.sampled_from([Digest(f"d{number}") for number in range(6)])
times = st.floats(NOW - 3 * KEEP, NOW)
blob = st.builds(Blob, size=st.integers(0, 100), came_at=times, in_use=st.booleans())


@st.composite
def worlds(draw):  # type: ignore[no-untyped-def]
    blobs = draw(st.dictionaries(names, blob))
    held = [
        Held(
            digest,
            draw(st.frozensets(st.sampled_from(sorted(blobs)), max_size=3)) if blobs else frozenset(),
            draw(times),
        )
        for digest in draw(st.sets(digests))
    ]
    return held, blobs, draw(st.none() | st.frozensets(digests)), draw(st.integers(0, 300))


@given(worlds())
def test_what_is_named_used_or_young_stays(world) -> None:  # type: ignore[no-untyped-def]
    held, blobs, references, missing = world
    decided = plan(held, blobs, references, NOW, grace=GRACE, keep=KEEP, missing=missing)
    if references is None:
        assert (decided.artifacts, decided.blobs) == ((), ())
        return
    assert not set(decided.artifacts) & references
    staying = {name for one in held if one.digest not in decided.artifacts for name in one.blobs}
    for name in decided.blobs:
        assert name not in staying
        assert not blobs[name].in_use
        assert NOW - blobs[name].came_at >= GRACE
    for one in held:
        if one.digest in decided.artifacts:
            assert NOW - one.used_at >= GRACE
            assert missing or NOW - one.used_at >= KEEP


@given(worlds())
def test_room_is_made_unless_nothing_is_left_to_delete(world) -> None:  # type: ignore[no-untyped-def]
    held, blobs, references, missing = world
    if references is None:
        return
    decided = plan(held, blobs, references, NOW, grace=GRACE, keep=KEEP, missing=missing)
    if sum(blobs[name].size for name in decided.blobs) < missing:
        left = [one for one in held if one.digest not in decided.artifacts and one.digest not in references]
        assert all(NOW - one.used_at < GRACE for one in left)


def test_the_one_used_longest_ago_goes_first_and_no_more_than_needed() -> None:
    blobs = {name: Blob(10, 0.0, False) for name in ("old", "new", "shared")}
    held = [
        Held(Digest("new"), frozenset({"new", "shared"}), NOW - 200),
        Held(Digest("old"), frozenset({"old", "shared"}), NOW - 300),
    ]
    decided = plan(held, blobs, frozenset(), NOW, grace=GRACE, keep=KEEP, missing=10)
    assert (decided.artifacts, decided.blobs) == (("old",), ("old",))
    everything = plan(held, blobs, frozenset(), NOW, grace=GRACE, keep=KEEP, missing=11)
    assert set(everything.blobs) == set(blobs)
    assert plan(held, blobs, frozenset(), NOW, grace=GRACE, keep=KEEP).artifacts == ()
    assert (
        plan(held, blobs, frozenset({Digest("old"), Digest("new")}), NOW, grace=GRACE, keep=KEEP, missing=99).blobs
        == ()
    )
