"""A digest is found once and holds from then on: the same bytes on every pod, or none."""

from motet_api.identity import Digest
from motet_api.wire import AdapterReport, AdaptersReport
from motet_operator.keys import Kind
from tests.operator.adapter_world import AdapterWorld, FakePod, digest_of
from tests.operator.factories import raw_adapter, raw_model
from tests.operator.test_reconciler import IP, ready_pod

OTHER_IP = "10.0.0.2"
URI = "pvc://adapters/x"


class OtherBytes(FakePod):
    """A pod that reads other bytes under the same path, and says so once it is told what they must be."""

    def report(self) -> AdaptersReport:
        found = super().report()
        return found.model_copy(update={"adapters": [self._other(entry) for entry in found.adapters]})

    def _other(self, entry: AdapterReport) -> AdapterReport:
        if entry.desired_digest is None:
            return entry.model_copy(update={"digest": Digest("sha256:" + "f" * 64)}) if entry.digest else entry
        wrong = {"reason": "DigestMismatch", "message": "other bytes", "digest": None, "rank": None}
        return AdapterReport.model_validate(entry.model_dump() | wrong)


def world_of(*pods: FakePod) -> AdapterWorld:
    """A model with an adapter without a digest, and these pods."""
    world = AdapterWorld()
    world.cluster.put(Kind.MODEL_DEPLOYMENT, raw_model(replicas=len(pods)))
    world.cluster.put(Kind.LORA_ADAPTER, raw_adapter())
    for ip, found in zip((IP, OTHER_IP), pods, strict=False):
        world.pods.pods[ip] = found
        world.cluster.put(Kind.POD, ready_pod(f"llama-{ip[-1]}", ip))
    return world


async def test_what_a_pod_has_read_is_recorded_and_told_to_every_pod() -> None:
    world = world_of(FakePod(), FakePod())
    await world.converge()
    assert world.status()["versions"][0]["digest"] == digest_of(URI)
    assert {world.told(ip)["voice@v1"].digest for ip in (IP, OTHER_IP)} == {digest_of(URI)}
    assert world.condition("Resolved", "v1") == ("True", "Resolved")
    turned = [entry for entry in world.cluster.said() if entry[1] == "voice" and entry[0] == "Warning"]
    assert turned == [], "telling it makes nothing unready"


async def test_pods_that_read_different_bytes_never_both_serve() -> None:
    world = world_of(FakePod(), OtherBytes())
    for _ in range(10):
        await world.run()
        assert world.split() == {}
    assert world.condition("Ready") == ("False", "DigestMismatch")
    assert world.condition("Resolved", "v1") == ("False", "DigestMismatch")
    assert world.condition("Stalled") == ("True", "DigestMismatch")
    assert "llama-2" in world.message("Ready")
    assert world.status()["versions"][0]["digest"] == digest_of(URI)


async def test_another_residency_is_told() -> None:
    world = world_of(FakePod())
    await world.converge()
    raw = raw_adapter(status=world.status())
    raw["spec"]["residency"] = "OnDemand"
    world.cluster.put(Kind.LORA_ADAPTER, raw)
    await world.converge()
    assert world.told(IP)["voice@v1"].residency == "OnDemand"
    assert world.condition("Ready") == ("True", "Ready")


async def test_a_pod_of_an_earlier_release_that_does_not_say_its_residency_is_not_told_for_ever() -> None:
    class Older(FakePod):
        def report(self) -> AdaptersReport:
            found = super().report()
            return replace_residency(found)

    world = world_of(Older())
    await world.converge()
    assert world.condition("Ready") == ("True", "Ready")


def replace_residency(report: AdaptersReport) -> AdaptersReport:
    """The report without what an earlier release does not say."""
    return report.model_copy(
        update={"adapters": [entry.model_copy(update={"residency": None}) for entry in report.adapters]}
    )
