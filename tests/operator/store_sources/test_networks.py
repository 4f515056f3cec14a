"""The rule about addresses, the measure of time, and the names: pure, so in tables."""

import pytest

from motet_api.reasons import AdapterReason
from motet_operator.store.sources.contract import Limits, RemoteFile, SourceError
from motet_operator.store.sources.file_names import common_folder, listing, wanted
from motet_operator.store.sources.networks import NamedOnly, Networks
from motet_operator.store.sources.pace import Pace


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.1.2.3", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("ff02::1", False),
        ("::", False),
        ("host.test", False),
        ("", False),
    ],
)
def test_public_addresses_only(address: str, permitted: bool) -> None:
    assert Networks().permits(address) is permitted


def test_a_named_network_is_permitted_and_its_neighbour_is_not() -> None:
    networks = Networks.of(["10.0.0.0/24", "fd00::/64"])
    assert networks.permits("10.0.0.7")
    assert networks.permits("::ffff:10.0.0.7")
    assert networks.permits("fd00::7")
    assert not networks.permits("10.0.1.7")
    with pytest.raises(ValueError, match="host bits"):
        Networks.of(["10.0.0.7/24"])


@pytest.mark.parametrize(
    ("chunks", "complaint"),
    [
        ([(0.5, 1000)] * 10, None),
        ([(0.5, 10)], None),
        ([(0.5, 10)] * 2, "below the minimum"),
        ([(0.0, 10)] * 1000, None),
        ([(0.9, 100_000)] * 12, "longer than"),
    ],
    ids=["fast", "slow for a moment", "slow", "the consumer's time is not counted", "too long"],
)
def test_pace(chunks: list[tuple[float, int]], complaint: str | None) -> None:
    pace = Pace(Limits(idle_seconds=1, min_bytes_per_second=1000, total_seconds=10))
    said = [pace.complaint(waited, received) for waited, received in chunks]
    assert not any(said) if complaint is None else complaint in (said[-1] or "")


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "x.pt", "model.py", "README.md", ".hidden.json", "a/b.json", "..", "", "a\n.json"]
)
def test_files_that_are_never_served(name: str) -> None:
    assert not wanted(name)


@pytest.mark.parametrize("name", ["adapter_config.json", "model-1.safetensors", "merges.txt", "adapter.sig"])
def test_files_that_are_served(name: str) -> None:
    assert wanted(name)


def test_common_folder() -> None:
    assert common_folder(["a/config.json", "a/b.txt", "readme"]) == "a/"
    assert common_folder(["config.json", "checkpoint/config.json"]) == ""
    with pytest.raises(SourceError, match="name one of the folders"):
        common_folder(["a/config.json", "b/config.json"])


@pytest.mark.parametrize(
    ("sizes", "says"), [([11], "has 11 bytes"), ([10, 10], "have 20 bytes"), ([1, 1, 1], "3 files"), ([5, 5], "")]
)
def test_limits_of_a_listing(sizes: list[int], says: str) -> None:
    limits = Limits(max_file_bytes=10, max_total_bytes=15, max_files=2)
    names = ["config.json", "a.safetensors", "b.safetensors"]
    files = [RemoteFile(name, size, "x") for name, size in zip(names, sizes, strict=False)]
    if not says:
        assert len(listing(files, limits, "it").files) == len(sizes)
        return
    with pytest.raises(SourceError, match=says) as caught:
        listing(files, limits, "it")
    assert caught.value.reason is AdapterReason.TOO_LARGE


def test_the_networks_that_the_installation_names() -> None:
    networks = Networks.of(["10.0.0.0/24"])
    for address, named in (("10.0.0.7", True), ("::ffff:10.0.0.7", True), ("8.8.8.8", False), ("nonsense", False)):
        assert networks.names(address) is named
        assert NamedOnly(networks).permits(address) is named
    assert networks.permits("8.8.8.8")
