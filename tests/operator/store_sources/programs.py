"""The real servers of these tests, as processes: versitygw (S3) and CNCF distribution (OCI), built from Go modules."""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localkube_lib import binaries
from tests.waiting import eventually

ACCESS_KEY, SECRET_KEY = "test-access", "test-secret-of-forty-characters-at-least"
USER, PASSWORD = "puller", "pull-password"


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[str]:
    """The program until the end of the context; gives `127.0.0.1:PORT` once it listens."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "HOME": str(log.parent)}
        )
        try:
            eventually(lambda: _listens(process, port), what=f"{command[0]} listens")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "the program has ended; see its log"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """versitygw over a folder; its file system must know extended attributes, or they lie beside it."""
    (folder / "data").mkdir()
    (folder / "meta").mkdir()
    port = _free_port()
    command = [str(binaries.versitygw()), "--port", f"127.0.0.1:{port}", "--access", ACCESS_KEY, "--secret", SECRET_KEY]
    command += ["posix", "--sidecar", str(folder / "meta"), str(folder / "data")]
    with _running(command, port, folder / "log") as address:
        yield address


@contextmanager
def oci_registry(folder: Path, auth: dict[str, object] | None = None) -> Iterator[str]:
    """CNCF distribution over a folder. `auth` is its own configuration of who may come in."""
    port = _free_port()
    configuration = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        **({"auth": auth} if auth else {}),
    }
    written = folder / "config.yml"
    written.write_text(json.dumps(configuration))
    with _running([str(binaries.registry()), "serve", str(written)], port, folder / "log") as address:
        yield address
