"""The network namespace that holds a whole cluster, so that clusters never collide on addresses or ports."""

import subprocess
from pathlib import Path

from localkube_lib.components import NODE_IP, NODE_SUBNET
from localkube_lib.errors import LocalKubeError

_NETNS_FOLDER = Path("/run/netns")


def exists(name: str) -> bool:
    """Whether the namespace is there."""
    return (_NETNS_FOLDER / name).exists()


def enter(name: str) -> list[str]:
    """Prefix of a command that runs in the namespace.

    `nsenter`, not `ip netns exec`: the latter mounts a fresh /sys, which hides the control groups.
    """
    return ["nsenter", f"--net={_NETNS_FOLDER / name}", "--"]


def ensure(name: str) -> None:
    """Make the namespace, with loopback and a veth pair of which one end carries the node's address."""
    if exists(name):
        return
    prefix = NODE_SUBNET.rpartition("/")[2]
    gateway = NODE_SUBNET.rpartition(".")[0] + ".1"
    _run("ip", "netns", "add", name)
    for command in (
        "ip link set lo up",
        "ip link add node0 type veth peer name node1",
        f"ip address add {NODE_IP}/{prefix} dev node0",
        "ip link set node1 up",
        "ip link set node0 up",
        # Nobody answers there: components only want a default route to find the node's address by.
        f"ip route add default via {gateway} dev node0",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1",
    ):
        _run(*enter(name), *command.split())


def remove(name: str) -> None:
    """Remove the namespace. Harmless when there is none."""
    if exists(name):
        _run("ip", "netns", "delete", name)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalKubeError(f"{' '.join(command)}: {done.stderr.strip()}")
