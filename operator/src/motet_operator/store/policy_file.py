"""The installation's policy as the store uses it: which sources a namespace may use, and whose signatures count."""

from pathlib import Path

from motet_api.policy import CLIMBS, NamespacePolicy, Policy, climbs
from motet_api.reasons import AdapterReason
from motet_operator.policy_source import PolicySource
from motet_operator.store.errors import StoreError
from motet_operator.store.signature import PublicKey, read_key


def check_keys(policy: Policy) -> None:
    """Raises: ValueError: a public key cannot be read."""
    for rules in (policy.default, *policy.namespaces.values()):
        _keys(rules)


def _keys(rules: NamespacePolicy) -> tuple[PublicKey, ...]:
    return tuple(read_key(pem) for pem in rules.signature.public_keys) if rules.signature else ()


class PolicyFile:
    """The policy in force. `path` None: everything that is public is allowed."""

    def __init__(self, path: Path | None) -> None:
        """Raises: OSError, ValueError: the file cannot be read, or says what is no policy."""
        self._source = PolicySource(path, check_keys)
        self.version = 0
        """Another number for each policy that comes into force."""
        self._allowed: dict[tuple[str, str], bool] = {}
        self._signers: dict[str, tuple[PublicKey, ...]] = {}

    @property
    def current(self) -> Policy:
        """The policy in force."""
        return self._source.current

    @property
    def broken(self) -> bool:
        """Whether the file holds something else than what is in force."""
        return self._source.broken

    def refresh(self) -> bool:
        """Read it again if it has changed; whether another one is in force."""
        changed = self._source.read()
        if changed:
            self.version += 1
            self._allowed.clear()
            self._signers.clear()
        return changed

    def check_source(self, namespace: str, uri: str) -> None:
        """Raises: StoreError unless the namespace may use this source."""
        key = (namespace, uri)
        allowed = self._allowed.get(key)
        if allowed is None:
            if len(self._allowed) > 100_000:
                self._allowed.clear()
            allowed = self._allowed[key] = self.current.of(namespace).allows(uri)
        if not allowed and climbs(uri):
            raise StoreError(AdapterReason.SOURCE_NOT_ALLOWED, f"source.uri {uri} is not allowed: {CLIMBS}")
        if not allowed:
            patterns = ", ".join(self.current.of(namespace).allowed_sources) or "none"
            message = (
                f"source.uri {uri} is not allowed in namespace {namespace}, only {patterns}: the administrator of the"
                f" installation can add a pattern to allowedSources (chart value policy)"
            )
            raise StoreError(AdapterReason.SOURCE_NOT_ALLOWED, message)

    def signers(self, namespace: str) -> tuple[PublicKey, ...]:
        """Whose signatures count in a namespace; empty if none is wanted."""
        if namespace not in self._signers:
            self._signers[namespace] = _keys(self.current.of(namespace))
        return self._signers[namespace]
