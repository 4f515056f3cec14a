"""What the end-to-end tests do to the cluster, and what they look at."""

import json
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from demo_lib.installation import NAMESPACE, RELEASE, Installation
from motet_api.names import ADAPTERS_PATH, MODEL_LABEL, SERVING_PORT
from motet_api.wire import AdaptersReport
from tests.e2e.asking import Answer, ask
from tests.e2e.objects import Manifest
from tests.waiting import eventually


@dataclass(frozen=True, slots=True)
class World:
    """A namespace of its own in the shared cluster, with the model and the adapters in a claim."""

    installation: Installation
    namespace: str
    material: Path
    url: str

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """kubectl in this namespace."""
        return self.installation.cluster.kubectl("-n", self.namespace, *arguments, **options)

    def apply(self, *manifests: Manifest) -> None:
        """kubectl apply."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def read(self, kind: str, name: str) -> Manifest:
        """One object."""
        found: Manifest = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def wait_ready(self, *objects: str, seconds: int = 90) -> None:
        """kubectl wait for the Ready condition, of the generation that is there now."""
        for name in objects:
            eventually(partial(self._conditions, name), _is_ready, seconds, f"{name} Ready")

    def _conditions(self, name: str) -> Manifest:
        item: Manifest = json.loads(self.kubectl("get", name, "-o", "json"))
        return {
            "generation": item["metadata"]["generation"],
            "conditions": item.get("status", {}).get("conditions", []),
        }

    def pods(self, model: str) -> list[Manifest]:
        """The runtime pods that are not on their way out."""
        items = json.loads(self.kubectl("get", "pods", "-l", f"{MODEL_LABEL}={model}", "-o", "json"))["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def pod_names(self, model: str) -> list[str]:
        """Names of the runtime pods, those on their way out included."""
        return self.kubectl("get", "pods", "-l", f"{MODEL_LABEL}={model}", "-o", "name").split()

    def report(self, pod: str) -> AdaptersReport | None:
        """What a runtime pod says it holds; None where it does not answer."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{SERVING_PORT}/proxy{ADAPTERS_PATH}"
        text = self.kubectl("get", "--raw", path, check=False)
        try:
            return AdaptersReport.model_validate_json(text)
        except ValueError:
            return None

    def ask(self, model: str, **options: Any) -> Answer:
        """One completion through the gateway. Names carry the namespace: the tests share one gateway."""
        return ask(self.url, f"{self.namespace}/{model}", **options)

    def kill_container(self, pod: Manifest) -> None:
        """SIGKILL every process of a pod's first container, as the kernel does when memory runs out."""
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        processes = [
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and container in _control_groups(folder)
        ]
        assert processes, f"no process of container {container}"
        for process in processes:
            os.kill(process, signal.SIGKILL)

    def system_pod(self, component: str) -> Manifest:
        """The running pod of one of the chart's parts; of the operator's, the one that leads."""
        selector = f"app.kubernetes.io/component={component}"
        items = json.loads(
            self.installation.cluster.kubectl("-n", NAMESPACE, "get", "pods", "-l", selector, "-o", "json")
        )
        leader = self._leader() if component == "operator" else ""
        (found,) = [
            item
            for item in items["items"]
            if "deletionTimestamp" not in item["metadata"] and leader in {"", item["metadata"]["name"]}
        ]
        return dict(found)

    def _leader(self) -> str:
        """Name of the operator's pod that holds the Lease."""
        words = ("get", "lease", f"{RELEASE}-operator", "-o", "jsonpath={.spec.holderIdentity}")
        return self.installation.cluster.kubectl("-n", NAMESPACE, *words).partition("_")[0]


def condition(item: Manifest, kind: str) -> Manifest:
    """A condition of an object (or of a version's status), or one that says it is not there yet."""
    found = item.get("status", item).get("conditions", [])
    return next((entry for entry in found if entry["type"] == kind), {"status": "Absent", "reason": "", "message": ""})


def _is_ready(seen: Manifest) -> bool:
    ready = condition(seen, "Ready")
    return ready["status"] == "True" and ready.get("observedGeneration") == seen["generation"]


def _control_groups(process: Path) -> str:
    try:
        return (process / "cgroup").read_text()
    except OSError:
        return ""
