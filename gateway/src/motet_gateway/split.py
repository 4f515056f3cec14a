"""The sticky weighted split: which version a user gets.

Weighted rendezvous hashing: every version draws `-ln(u) / weight` with u from a hash of (adapter, user, version), and
the lowest draw wins. So the shares are the weights' shares, every gateway gives the same answer without talking to the
others, and a change moves no more users than it must: going from 90/10 to 80/20 moves a tenth of them, all to the
second version, and a version that drops out for a while moves only its own users, and gets them back afterwards.
(Thaler and Ravishankar 1998; the logarithm that makes it weighted is from Schindelhauer and Schomaker 2005.)
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Final

from motet_gateway.table import Share

_STEPS: Final = 2.0**53


def unit_interval(*parts: str) -> float:
    """A number in (0, 1) that depends on nothing but the parts."""
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 11
    return (number + 0.5) / _STEPS


def choose_version(adapter: str, user: str, shares: Sequence[Share]) -> str:
    """The version that this user gets.

    Args:
        adapter: identity of the adapter, so that a user falls differently for different adapters.
        user: key of the user; the same key always gets the same version while the shares stay.
        shares: at least one with a weight above zero. Their order does not matter.
    """
    weighted = [share for share in shares if share.weight > 0]
    if len(weighted) == 1:
        return weighted[0].version
    return min(weighted, key=lambda share: (_draw(adapter, user, share), share.version)).version


def _draw(adapter: str, user: str, share: Share) -> float:
    return -math.log(unit_interval(adapter, user, share.version)) / share.weight
