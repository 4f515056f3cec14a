"""What a ModelDeployment with a given spec becomes, for tests that look at single children."""

from dataclasses import replace
from typing import Any

from motet_api.identity import Digest
from motet_api.store import ArtifactReport, ArtifactState
from motet_operator.installation import Installation, Peers, PodSelection
from motet_operator.keys import Kind
from motet_operator.models.base_source import base_source
from motet_operator.models.resources import Manifest, make_children
from motet_operator.snapshot import BaseAnswer
from tests.operator.factories import DIGEST, INSTALLATION, model

HEX = DIGEST.removeprefix("sha256:")
REMOTE = {"source": {"uri": "hf://org/name"}}
PEERS = Peers(
    gateway=PodSelection("motet", {"app": "gateway"}),
    operator=PodSelection("motet", {"app": "operator"}),
    store=PodSelection("motet", {"app": "store"}),
)
WITH_STORE = replace(INSTALLATION, store="http://store.motet:8002", peers=PEERS)


def children(installation: Installation = INSTALLATION, **spec: Any) -> dict[Kind, Manifest]:
    """All of them; a base that is fetched is there."""
    given = model(**spec)
    assert given.spec is not None, given.error
    verified = BaseAnswer(ArtifactReport(state=ArtifactState.VERIFIED, digest=Digest(DIGEST), revision="abc"))
    base = base_source(given, verified, installation.store).effective
    return make_children(given.meta, given.spec, base, installation)


def template(kind: Kind = Kind.DEPLOYMENT, installation: Installation = INSTALLATION, **spec: Any) -> Manifest:
    """The pod template of one child."""
    made: Manifest = children(installation, **spec)[kind]["spec"]["template"]
    return made


def pod(kind: Kind = Kind.DEPLOYMENT, installation: Installation = INSTALLATION, **spec: Any) -> Manifest:
    """Its pod's spec."""
    made: Manifest = template(kind, installation, **spec)["spec"]
    return made


def containers(kind: Kind = Kind.DEPLOYMENT, installation: Installation = INSTALLATION, **spec: Any) -> dict[str, Any]:
    """All of its pod's containers by name, those that run before among them."""
    made = pod(kind, installation, **spec)
    return {entry["name"]: entry for entry in [*made.get("initContainers", []), *made["containers"]]}
