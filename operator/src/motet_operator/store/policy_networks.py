"""The networks that sources may be in, as the policy of the moment says."""

from functools import lru_cache

from motet_operator.store.policy_file import PolicyFile
from motet_operator.store.sources.networks import Networks


class PolicyNetworks:
    """`Networks` that change with the policy."""

    def __init__(self, policy: PolicyFile) -> None:
        self._policy = policy

    def permits(self, address: str) -> bool:
        """Whether a connection to this address is allowed."""
        return self._now().permits(address)

    def names(self, address: str) -> bool:
        """Whether the policy itself names a network with this address."""
        return self._now().names(address)

    def _now(self) -> Networks:
        return _networks(tuple(self._policy.current.private_networks))


@lru_cache(maxsize=4)
def _networks(texts: tuple[str, ...]) -> Networks:
    return Networks.of(texts)
