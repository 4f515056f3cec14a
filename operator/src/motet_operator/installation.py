"""What is the same for every ModelDeployment: where this installation's other parts are, and its defaults."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """The image of runtime pods whose ModelDeployment names none."""

    image: str
    pull_policy: str


@dataclass(frozen=True, slots=True)
class PodSelection:
    """Pods of one namespace that carry all these labels."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Peers:
    """Whom runtime pods talk to: all others are kept out by a NetworkPolicy.

    `store` is None where there is none, `metrics_namespace` empty where nobody scrapes from outside these pods.
    """

    gateway: PodSelection
    operator: PodSelection
    store: PodSelection | None = None
    metrics_namespace: str = ""


@dataclass(frozen=True, slots=True)
class Installation:
    """`store` is the adapter store's address, `http://host:port`; empty if there is none. Without `peers` no
    NetworkPolicies are made.
    """

    runtime: RuntimeImage
    store: str = ""
    peers: Peers | None = None
