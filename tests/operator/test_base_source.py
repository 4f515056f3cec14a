"""Which base pods are made from, by what the store says: the table at the top of base_source.py."""

from dataclasses import replace
from typing import Any

import pytest

from motet_api.modeldeployment import ModelSourceStatus
from motet_api.reasons import AdapterReason, Reason
from motet_api.store import (
    ArtifactKind,
    ArtifactReport,
    ArtifactRequest,
    ArtifactsAnswer,
    ArtifactsQuery,
    ArtifactState,
    Refusal,
)
from motet_operator import looks
from motet_operator.errors import SilentStoreError
from motet_operator.installation import Installation
from motet_operator.keys import Kind
from motet_operator.kube.index import Index
from motet_operator.models.base_source import BaseSource, base_request, base_source
from motet_operator.passes.applied import AppliedMemory
from motet_operator.passes.decide import Apply, Delete, decide
from motet_operator.passes.observe import Observer
from motet_operator.snapshot import BaseAnswer, Snapshot
from motet_operator.views import Model
from tests.operator.factories import DIGEST, INSTALLATION, KEY, NAMESPACE, NOW, OTHER_DIGEST, model, raw_model
from tests.operator.fakes import FakeCluster, FakeRuntime

HF = "hf://org/name"
STORE = "http://store:8002"
SILENT = BaseAnswer(silence="timed out")
STORED = replace(INSTALLATION, store=STORE)


def remote(status: dict[str, Any] | None = None, **source: Any) -> Model:
    return model(model={"source": {"uri": HF, **source}}, status=status)


def recorded(uri: str = HF, revision: str = "abc", digest: str = DIGEST) -> dict[str, Any]:
    return {"source": {"uri": uri, "revision": revision, "digest": digest}}


def says(state: ArtifactState, **report: Any) -> BaseAnswer:
    return BaseAnswer(ArtifactReport(state=state, **report))


VERIFIED = says(ArtifactState.VERIFIED, digest=DIGEST, revision="abc")
FETCHING = says(ArtifactState.FETCHING, size_bytes=16 << 30, fetched_bytes=3 << 29)
OLD = ModelSourceStatus(uri="hf://org/old", revision="abc", digest=OTHER_DIGEST)
OLD_STATUS = {"source": OLD.to_wire()}
FOUND = ModelSourceStatus(uri=HF, revision="abc", digest=DIGEST)


def failed(reason: AdapterReason) -> BaseAnswer:
    return says(ArtifactState.FAILED, failure=Refusal(reason=reason, message="no"))


SOURCES = {
    "files that the pods read themselves": (
        model(),
        BaseAnswer(),
        ("True", Reason.RESOLVED, ModelSourceStatus(uri="pvc://models/llama"), True, False),
    ),
    "verified": (remote(), VERIFIED, ("True", Reason.RESOLVED, FOUND, True, False)),
    "resolving": (remote(), says(ArtifactState.RESOLVING), ("False", Reason.FETCHING, None, False, False)),
    "fetching": (remote(), FETCHING, ("False", Reason.FETCHING, None, False, False)),
    "fetching, another base serves": (remote(OLD_STATUS), FETCHING, ("False", Reason.FETCHING, OLD, False, False)),
    "the store has lost it and fetches again": (
        remote(recorded()),
        FETCHING,
        ("False", Reason.FETCHING, FOUND, True, False),
    ),
    "failed for now": (
        remote(),
        failed(AdapterReason.FETCH_FAILED),
        ("False", AdapterReason.FETCH_FAILED, None, False, False),
    ),
    "failed for good, another base serves": (
        remote(OLD_STATUS),
        failed(AdapterReason.DIGEST_MISMATCH),
        ("False", AdapterReason.DIGEST_MISMATCH, OLD, False, True),
    ),
    "the store is silent": (remote(), SILENT, ("Unknown", Reason.STORE_UNREACHABLE, None, False, False)),
    "the store is silent, the base is known": (
        remote(recorded()),
        SILENT,
        ("Unknown", Reason.STORE_UNREACHABLE, FOUND, True, False),
    ),
}


def summary(found: BaseSource) -> tuple[str, str, ModelSourceStatus | None, bool, bool]:
    return found.verdict.status, found.verdict.reason, found.effective, found.current, found.final


@pytest.mark.parametrize(("given", "answer", "expected"), SOURCES.values(), ids=SOURCES)
def test_sources(given: Model, answer: BaseAnswer, expected: tuple[Any, ...]) -> None:
    assert summary(base_source(given, answer, STORE)) == expected


def test_without_a_store_the_remedy_is_named() -> None:
    found = base_source(remote(), BaseAnswer(), "")
    assert summary(found) == ("False", Reason.STORE_NOT_CONFIGURED, None, False, True)
    assert "store.enabled" in found.verdict.message


def test_progress_is_said() -> None:
    assert "1.5 of 16.0 GiB" in base_source(remote(), FETCHING, STORE).verdict.message


def test_what_is_asked_of_the_store() -> None:
    request = base_request(remote(revision="main", digest=DIGEST, secretRef={"name": "hf"}))
    assert request is not None
    assert (request.kind, request.namespace, request.uri) == (ArtifactKind.BASE_MODEL, NAMESPACE, HF)
    assert (request.revision, request.digest, request.secret_name) == ("main", DIGEST, "hf")
    assert base_request(model()) is None


@pytest.mark.parametrize(
    ("given", "revision", "digest"),
    [
        (remote(recorded()), "abc", DIGEST),
        (remote(recorded(f"{HF}@main"), revision="main"), "abc", DIGEST),
        (remote(recorded(), revision="main"), "main", None),
        (remote(recorded("hf://org/old")), None, None),
        (remote(recorded(), digest=OTHER_DIGEST), None, OTHER_DIGEST),
        (remote(recorded(digest="")), None, None),
    ],
    ids=["known", "known by a branch", "another branch", "another source", "another digest", "never fetched"],
)
def test_a_recorded_base_is_pinned_until_spec_names_another(
    given: Model, revision: str | None, digest: str | None
) -> None:
    request = base_request(given)
    assert request is not None
    assert (request.revision, request.digest) == (revision, digest)


def kinds(given: Model, answer: BaseAnswer, installation: Installation = STORED) -> set[Kind]:
    decision = decide(Snapshot(KEY, given, base=answer), NOW, installation)
    assert not any(isinstance(action, Delete) for action in decision.actions)
    return {action.kind for action in decision.actions if isinstance(action, Apply)}


def test_no_pods_before_the_base_is_there() -> None:
    others = {Kind.SERVICE_ACCOUNT, Kind.SERVICE, Kind.DISRUPTION_BUDGET}
    assert kinds(remote(), FETCHING) == others
    assert kinds(remote(), SILENT) == others
    assert kinds(remote(), VERIFIED) == others | {Kind.DEPLOYMENT}


def test_pods_go_on_from_the_old_base_while_the_new_one_is_fetched() -> None:
    decision = decide(Snapshot(KEY, remote(OLD_STATUS), base=FETCHING), NOW, STORED)
    (deployment,) = [action for action in decision.actions if isinstance(action, Apply) and action.kind == "Deployment"]
    assert OTHER_DIGEST.removeprefix("sha256:") in str(deployment.manifest)
    assert decision.model_status is not None
    assert decision.model_status.source == OLD
    assert decision.look_again == looks.SOON


def test_what_was_found_is_recorded() -> None:
    decision = decide(Snapshot(KEY, remote(), base=VERIFIED), NOW, STORED)
    assert decision.model_status is not None
    assert decision.model_status.source == FOUND


class Store:
    """Answers one thing, or not at all; takes down what it is asked."""

    def __init__(self, report: ArtifactReport | None) -> None:
        self.report = report
        self.asked: list[ArtifactRequest] = []

    async def query(self, query: ArtifactsQuery) -> ArtifactsAnswer:
        self.asked += query.artifacts
        if self.report is None:
            raise SilentStoreError("timed out")
        return ArtifactsAnswer(artifacts=[self.report])


async def seen(store: Store, uri: str) -> BaseAnswer:
    index, runtime = Index(), FakeRuntime()
    index.put(Kind.MODEL_DEPLOYMENT, raw_model(model={"source": {"uri": uri}}))
    return (await Observer(index, FakeCluster(), runtime, AppliedMemory(), STORED, store).observe(KEY)).base


async def test_the_store_is_asked_for_a_base_that_is_fetched_and_for_no_other() -> None:
    assert VERIFIED.report is not None
    store = Store(VERIFIED.report)
    assert await seen(store, HF) == VERIFIED
    assert [request.uri for request in store.asked] == [HF]
    assert (await seen(store, "pvc://models/llama")).report is None
    assert len(store.asked) == 1


async def test_a_store_that_does_not_answer_ends_no_pass() -> None:
    assert await seen(Store(None), HF) == BaseAnswer(silence="timed out")
