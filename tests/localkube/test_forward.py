"""Forwards: many connections at once, each direction ended by itself, and the same port for the same target."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from localkube_lib import netns
from localkube_lib.errors import LocalKubeError
from localkube_lib.forward import enter_network_namespace
from localkube_lib.forwards import Forwards
from localkube_lib.processes import ProcessTable

pytestmark = pytest.mark.localkube

NETNS = "motet-lk-forward"


@pytest.fixture
def forwards(tmp_path: Path) -> Iterator[Forwards]:
    netns.remove(NETNS)
    netns.ensure(NETNS)
    table = ProcessTable(tmp_path / "run", tmp_path / "logs")
    yield Forwards(table, NETNS)
    for record in table.records():
        table.stop(record.name)
    netns.remove(NETNS)


@contextmanager
def _served(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server inside the namespace; a thread's namespace is its own, and a socket keeps the one it was made in."""
    made: list[socket.socket] = []

    def make() -> None:
        enter_network_namespace(NETNS)
        made.append(socket.create_server(("127.0.0.1", 0), backlog=512))

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    listener = made[0]

    def one(connection: socket.socket) -> None:
        with connection:
            answer(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()


def _echo_at_the_end(connection: socket.socket) -> None:
    """Answers only once the other side has ended its direction."""
    received = b""
    while data := connection.recv(65536):
        received += data
    connection.sendall(received)


def _exchange(port: int, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while data := client.recv(65536):
            received += data
    return received


def test_half_closed_connections_go_on(forwards: Forwards) -> None:
    content = bytes(range(256)) * 16384
    with _served(_echo_at_the_end) as inside:
        port = forwards.ensure("some", f"127.0.0.1:{inside}")
        assert _exchange(port, content) == content


def test_hundreds_of_connections_at_once(forwards: Forwards) -> None:
    count = 600
    everybody = threading.Barrier(count + 1, timeout=60)

    def hold(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        connection.recv(1)
        connection.sendall(b"bye")

    with _served(hold) as inside:
        port = forwards.ensure("many", f"127.0.0.1:{inside}")

        def stay(_: int) -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                first = client.recv(5, socket.MSG_WAITALL)
                everybody.wait()
                client.sendall(b".")
                return first + client.recv(3, socket.MSG_WAITALL)

        with ThreadPoolExecutor(count) as pool:
            answers = pool.map(stay, range(count))
            everybody.wait()
            assert set(answers) == {b"hellobye"}


def test_target_that_refuses_closes_the_connection(forwards: Forwards) -> None:
    port = forwards.ensure("nobody", "127.0.0.1:9")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client, suppress(ConnectionResetError):
        assert client.recv(1) == b""


def test_same_target_same_port_and_a_changed_address_keeps_it(forwards: Forwards) -> None:
    with _served(_echo_at_the_end) as one, _served(_echo_at_the_end) as two:
        port = forwards.ensure("ns/service:80", f"127.0.0.1:{one}")
        assert forwards.ensure("ns/service:80", f"127.0.0.1:{one}") == port
        assert forwards.ports() == {"ns/service:80": port}
        assert forwards.ensure("ns/service:80", f"127.0.0.1:{two}") == port
        assert _exchange(port, b"again") == b"again"


def test_wanted_port_is_taken_or_refused(forwards: Forwards) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(LocalKubeError, match=f"port {taken} of 127"):
            forwards.ensure("some", "127.0.0.1:9", wanted=taken)
        assert forwards.ensure("some", "127.0.0.1:9", preferred=taken) != taken
    assert forwards.ensure("some", "127.0.0.1:9", wanted=taken) == taken


def test_connections_do_not_hold_up_the_end(forwards: Forwards) -> None:
    with _served(lambda connection: connection.recv(1) and None) as inside:
        port = forwards.ensure("held", f"127.0.0.1:{inside}")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            forwards.processes.stop("forward-held", grace=5)
            assert forwards.ports() == {}
            client.close()
