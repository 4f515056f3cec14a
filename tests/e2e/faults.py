"""What is done to the cluster while requests flow: one function for each fault."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from demo_lib.installation import NAMESPACE
from motet_api.names import API_VERSION, LORA_ADAPTER_PLURAL
from tests.e2e.objects import Manifest
from tests.e2e.truth import REFERENCE
from tests.e2e.world import ApiError, World
from tests.waiting import eventually

API_SERVER = "kube-apiserver"
DOWN_SECONDS = 5.0


def kill_leader(world: World) -> None:
    """SIGKILL the operator that is at work; kubelet starts it again."""
    world.kill_container(world.system_pod("operator"))


def delete_leader(world: World) -> None:
    """Delete the pod of the operator that is at work: it gives the Lease back and goes."""
    name = world.system_pod("operator")["metadata"]["name"]
    world.installation.cluster.kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait=false")


def kill_runtime(world: World) -> None:
    """SIGKILL one of the runtimes; it starts again in place, with nothing in memory."""
    world.kill_container(world.pods("tiny")[0])


def delete_runtime(world: World) -> None:
    """Delete one of the runtime pods."""
    world.kubectl("delete", "pod", world.pods("tiny")[0]["metadata"]["name"], "--wait=false")


def restart_api_server(world: World) -> None:
    """SIGKILL the API server and start it again a few seconds later.

    Every watch is cut; and what a watcher has seen last is older than all that the new process remembers.
    """
    cluster = world.installation.cluster
    record = cluster.processes.find(API_SERVER)
    assert record is not None
    seen: str = world.read("lora", REFERENCE)["metadata"]["resourceVersion"]
    assert not watch_is_refused(world, seen)
    os.kill(record.pid, signal.SIGKILL)
    eventually(lambda: cluster.processes.find(API_SERVER), lambda found: found is None, 5, "no API server")
    time.sleep(DOWN_SECONDS)
    cluster.up()
    # Until it has filled its memory it passes a watch on to etcd, which has more.
    eventually(lambda: watch_is_refused(world, seen), bool, 10, "410 Gone to a watch that goes on from before")


def watch_is_refused(world: World, version: str) -> bool:
    """Whether a watch from there must begin anew."""
    query = f"watch=1&resourceVersion={version}&timeoutSeconds=1"
    try:
        event = world.get(f"/apis/{API_VERSION}/{LORA_ADAPTER_PLURAL}?{query}")
    except ApiError as error:
        return error.status == 410
    except ValueError:
        # Nothing, or several events: the watch goes on.
        return False
    return bool(event["type"] == "ERROR" and event["object"]["code"] == 410)


@contextmanager
def quarrel(world: World, *names: str) -> Iterator[None]:
    """Somebody else edits the same objects all the time: labels, annotations, a Deployment's replicas."""
    stop = threading.Event()
    edits: list[Callable[[int], None]] = [
        *(lambda turn, name=name: label(world, "lora", name, turn) for name in names),
        lambda turn: label(world, "mdep", "tiny", turn),
        lambda turn: label(world, "deployment", "tiny", turn),
        lambda turn: scale(world, 3 if turn % 2 else 2),
    ]

    def run() -> None:
        turn = 0
        while not stop.wait(0.1):
            edits[turn % len(edits)](turn)
            turn += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def label(world: World, kind: str, name: str, turn: int) -> None:
    """Change a label and an annotation."""
    metadata = {"labels": {"turn": str(turn)}, "annotations": {"example.com/turn": str(turn)}}
    patch(world, kind, name, {"metadata": metadata})


def scale(world: World, pods: int) -> None:
    """Take the Deployment's replicas over, as a tool would that does not know whose they are."""
    patch(world, "deployment", "tiny", {"spec": {"replicas": pods}}, "--field-manager=somebody")


def patch(world: World, kind: str, name: str, change: Manifest, *options: str) -> None:
    """A merge patch."""
    world.kubectl("patch", kind, name, "--type=merge", f"--patch={json.dumps(change)}", *options, check=False)


def connections_cut(world: World) -> int:
    """Close every connection to the API server, which stays up; returns how many there were."""
    cluster = world.installation.cluster
    listed = cluster.run_inside("ss", "-Htn", "state", "established", "( sport = :6443 )")
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{cluster.paths.netns}", "ss", "-K", "sport", "=", ":6443"],
        check=False,
        capture_output=True,
        timeout=30,
    )
    return len(listed.splitlines())
