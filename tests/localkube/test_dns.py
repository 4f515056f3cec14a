"""The messages of the cluster's DNS, without a cluster."""

import struct
from collections.abc import Mapping
from typing import Any

import pytest

from localkube_lib.dns import Names, addresses, answer

NAME = "motet-store.motet-system.svc.cluster.local"
KNOWN = {NAME: "10.96.7.9"}
A, AAAA = 1, 28


def query(name: str, kind: int = A, flags: int = 0x0100, questions: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, flags, questions, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def read(message: bytes | None) -> tuple[int, int, str]:
    """Response code, number of answers, and the address."""
    assert message is not None
    number, flags, questions, count, _, _ = struct.unpack_from("!HHHHHH", message)
    assert (number, questions, flags & 0x8500) == (7, 1, 0x8500)
    return flags & 0xF, count, ".".join(map(str, message[-4:])) if count else ""


def test_a_service_has_its_address() -> None:
    assert read(answer(query(NAME), KNOWN)) == (0, 1, "10.96.7.9")
    assert read(answer(query(NAME.upper()), KNOWN)) == (0, 1, "10.96.7.9")


def test_a_name_that_has_no_address_of_that_kind_exists_all_the_same() -> None:
    """A resolver that asked for both kinds would take a "no such name" for an answer to both."""
    assert read(answer(query(NAME, AAAA), KNOWN)) == (0, 0, "")


def test_there_is_nothing_else() -> None:
    assert read(answer(query(f"{NAME}.motet-system.svc.cluster.local"), KNOWN)) == (3, 0, "")
    assert read(answer(query("example.com"), KNOWN)) == (3, 0, "")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        query(NAME)[:20],
        query(NAME)[:-4],
        query(NAME, flags=0x8100),
        query(NAME, questions=2),
        query(NAME)[:12] + b"\xc0\x0c\0\x01\0\x01",
        query(NAME) + b"x" * 600,
    ],
    ids=["empty", "cut off in the name", "no type", "an answer", "two questions", "a pointer", "too long"],
)
def test_what_is_no_question_has_no_answer(message: bytes) -> None:
    assert answer(message, KNOWN) is None


def service(name: str, address: str | None) -> dict[str, Any]:
    spec = {} if address is None else {"clusterIP": address}
    return {"metadata": {"name": name, "namespace": "motet-system"}, "spec": spec}


def test_services_without_an_address_have_no_name() -> None:
    listed = {"items": [service("motet-store", "10.96.7.9"), service("headless", "None"), service("external", None)]}
    assert addresses(listed) == KNOWN


def test_the_last_answer_holds_while_the_api_server_is_silent() -> None:
    now = 100.0
    heard: list[Mapping[str, Any] | None] = [{"items": [service("motet-store", "10.96.7.9")]}, None, {"items": []}]
    names = Names(lambda: heard.pop(0), lambda: now)
    assert names.current() == KNOWN
    assert names.current() == KNOWN
    assert len(heard) == 2, "asked once a second at most"
    now += 1
    assert names.current() == KNOWN
    now += 1
    assert names.current() == {}
