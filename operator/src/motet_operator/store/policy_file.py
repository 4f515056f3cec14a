"""The installation's policy, read from a file, and again when it changes. A broken new one leaves the old in force."""

import logging
from pathlib import Path

import yaml
from pydantic import ValidationError

from motet_api.policy import NamespacePolicy, Policy
from motet_api.reasons import AdapterReason
from motet_operator.store.errors import StoreError
from motet_operator.store.signature import PublicKey, read_key

log = logging.getLogger(__name__)


def parse_policy(text: bytes) -> Policy:
    """Read a policy.

    Raises:
        ValueError: it is not YAML, has an unknown field, or a value that cannot be meant; the message says where.
    """
    try:
        document = yaml.safe_load(text)
        policy = Policy.model_validate({} if document is None else document)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    for rules in (policy.default, *policy.namespaces.values()):
        _keys(rules)
    return policy


def _keys(rules: NamespacePolicy) -> tuple[PublicKey, ...]:
    return tuple(read_key(pem) for pem in rules.signature.public_keys) if rules.signature else ()


class PolicyFile:
    """The policy in force. `path` None: everything that is public is allowed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._text = b""
        self.current = Policy()
        self.version = 0
        """Another number for each policy that comes into force."""
        self.broken = False
        """Whether the file holds something else than what is in force."""
        self._allowed: dict[tuple[str, str], bool] = {}
        self._signers: dict[str, tuple[PublicKey, ...]] = {}

    def open(self) -> None:
        """Read it for the first time. Raises: OSError, ValueError."""
        if self._path is not None:
            text = self._path.read_bytes()
            self._put(parse_policy(text), text)

    def refresh(self) -> None:
        """Read it again if it has changed."""
        if self._path is None:
            return
        try:
            text = self._path.read_bytes()
            if text == self._text:
                self.broken = False
                return
            self._put(parse_policy(text), text)
            log.info("%s: the new policy is in force", self._path)
        except (OSError, ValueError) as error:
            self.broken = True
            log.error("%s is refused and the policy stays as it was: %s", self._path, error)

    def check_source(self, namespace: str, uri: str) -> None:
        """Raises: StoreError unless the namespace may use this source."""
        key = (namespace, uri)
        allowed = self._allowed.get(key)
        if allowed is None:
            if len(self._allowed) > 100_000:
                self._allowed.clear()
            allowed = self._allowed[key] = self.current.of(namespace).allows(uri)
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

    def _put(self, policy: Policy, text: bytes) -> None:
        self.current, self._text, self.broken = policy, text, False
        self.version += 1
        self._allowed.clear()
        self._signers.clear()
