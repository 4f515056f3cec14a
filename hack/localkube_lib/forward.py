"""Carries a port of the host's loopback into a cluster's network namespace.

The listening socket, handed over as standard input, was opened in the host's namespace; the process enters the
cluster's and dials from there. A socket keeps the namespace it was opened in, so no link between the two is needed.
"""

import argparse
import asyncio
import ctypes
import os
import resource
import signal
import socket
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_CHUNK = 256 * 1024
BACKLOG = 512


def enter_network_namespace(name: str) -> None:
    """Move this (single-threaded) process into a named network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{name}").open("rb") as handle:
        if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its end; then half-close, so that the other direction may go on."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def serve(listener: socket.socket, target_host: str, target_port: int) -> None:
    """Accept and forward until cancelled. A target that refuses is a closed connection, as it would be directly."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            remote_reader, remote_writer = await asyncio.open_connection(target_host, target_port)
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, remote_writer))
                group.create_task(_copy(remote_reader, writer))
        except* OSError:
            pass
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            remote_writer.close()

    server = await asyncio.start_server(handle, sock=listener, backlog=BACKLOG)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    # Not `async with server`, which from Python 3.12 on waits until every connection has ended by itself.
    server.close()


def main() -> None:
    """Entry point of the forwarder's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--netns", required=True)
    parser.add_argument("--listen", required=True, help="the socket's port, for whoever reads the command line")
    parser.add_argument("--target", required=True, help="ADDRESS:PORT inside the namespace")
    options = parser.parse_args()
    listener = socket.socket(fileno=0)
    listener.listen(BACKLOG)
    # Each connection takes two descriptors; the usual soft limit of 1024 is soon reached.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    enter_network_namespace(options.netns)
    host, _, port = options.target.rpartition(":")
    asyncio.run(serve(listener, host, int(port)))


if __name__ == "__main__":
    main()
