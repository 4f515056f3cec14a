"""The forwards of one cluster: a process each, from a port of the host's loopback into the cluster's namespace."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from localkube_lib.errors import LocalKubeError
from localkube_lib.processes import ProcessTable

_PREFIX = "forward-"


def process_name(key: str) -> str:
    """The name in the process table, which is a file's name."""
    return _PREFIX + quote(key, safe=":")


@dataclass(frozen=True, slots=True)
class Forwards:
    """Forwards by key: the API server's, or the target as it was asked for."""

    processes: ProcessTable
    netns: str

    def ports(self) -> dict[str, int]:
        """Local port by key, of those that run."""
        running = (record for record in self.processes.records() if record.name.startswith(_PREFIX) and record.alive())
        return {unquote(record.name.removeprefix(_PREFIX)): int(record.option("--listen") or 0) for record in running}

    def ensure(self, key: str, address: str, wanted: int = 0, preferred: int = 0) -> int:
        """Have a forward to `address`; returns its port on 127.0.0.1.

        It stays as it is unless the address behind the key has changed or another port is wanted. `preferred` is used
        if it is free.

        Raises:
            LocalKubeError: the wanted port is taken.
        """
        name = process_name(key)
        running = self.processes.find(name)
        if running:
            port = int(running.option("--listen") or 0)
            if running.option("--target") == address and wanted in {0, port}:
                return port
            preferred = port
            self.processes.stop(name)
        with _listener(wanted, preferred) as listener:
            port = int(listener.getsockname()[1])
            script = Path(__file__).parent / "forward.py"
            options = ["--netns", self.netns, "--listen", str(port), "--target", address]
            self.processes.start(name, [sys.executable, str(script), *options], listener=listener)
        return port


def _listener(wanted: int, preferred: int) -> socket.socket:
    if preferred and not wanted:
        try:
            return socket.create_server(("127.0.0.1", preferred))
        except OSError:
            pass
    try:
        return socket.create_server(("127.0.0.1", wanted))
    except OSError as error:
        raise LocalKubeError(f"port {wanted} of 127.0.0.1: {error.strerror}") from error
