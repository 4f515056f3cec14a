"""What the end-to-end tests do to the cluster, and what they look at."""

import http.client
import json
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from demo_lib.installation import NAMESPACE, RELEASE, Installation
from motet_api.names import (
    ADAPTERS_PATH,
    API_VERSION,
    LORA_ADAPTER_PLURAL,
    MODEL_DEPLOYMENT_PLURAL,
    MODEL_LABEL,
    SERVING_PORT,
)
from motet_api.wire import AdaptersReport
from tests.e2e.asking import Answer, ask
from tests.e2e.objects import Manifest
from tests.waiting import eventually

API_TIMEOUT = 10.0
KINDS = {
    "mdep": f"/apis/{API_VERSION}/namespaces/{{}}/{MODEL_DEPLOYMENT_PLURAL}",
    "lora": f"/apis/{API_VERSION}/namespaces/{{}}/{LORA_ADAPTER_PLURAL}",
    "deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "pod": "/api/v1/namespaces/{}/pods",
}
"""Where objects lie that are read often; kubectl would take a tenth of a second of a core each time."""


class ApiError(Exception):
    """What the API server said instead of an object; `status` 0 when it did not answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


@dataclass(frozen=True, slots=True)
class World:
    """A namespace of its own in the shared cluster, with the model and the adapters in a claim."""

    installation: Installation
    namespace: str
    material: Path
    url: str
    """The gateway's."""
    api: str
    """The API server's, by way of `kubectl proxy`."""

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """kubectl in this namespace."""
        return self.installation.cluster.kubectl("-n", self.namespace, *arguments, **options)

    def apply(self, *manifests: Manifest) -> None:
        """kubectl apply."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def read(self, kind: str, name: str) -> Manifest:
        """One object. Raises: ApiError."""
        listed = KINDS.get(kind)
        found: Manifest = (
            self.get(f"{listed}/{name}") if listed else json.loads(self.kubectl("get", kind, name, "-o", "json"))
        )
        return found

    def get(self, path: str) -> Any:
        """What the API server has under a path; `{}` in it stands for the namespace.

        Raises:
            ApiError: it answered with an error, or not at all.
        """
        where = urlsplit(self.api)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=API_TIMEOUT)
        try:
            connection.request("GET", path.format(self.namespace))
            response = connection.getresponse()
            body, status = response.read(), response.status
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, repr(error)) from error
        finally:
            connection.close()
        if status != 200:
            raise ApiError(status, body.decode(errors="replace"))
        return json.loads(body)

    def wait_ready(self, *objects: str, seconds: int = 90) -> None:
        """kubectl wait for the Ready condition, of the generation that is there now."""
        for name in objects:
            eventually(partial(self._conditions, name), _is_ready, seconds, f"{name} Ready")

    def _conditions(self, name: str) -> Manifest:
        item = self.read(*name.split("/"))
        return {
            "generation": item["metadata"]["generation"],
            "conditions": item.get("status", {}).get("conditions", []),
        }

    def pods(self, model: str) -> list[Manifest]:
        """The runtime pods that are not on their way out."""
        items = self.get(f"/api/v1/namespaces/{{}}/pods?labelSelector={quote(f'{MODEL_LABEL}={model}')}")["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def pod_names(self, model: str) -> list[str]:
        """Names of the runtime pods, those on their way out included."""
        return self.kubectl("get", "pods", "-l", f"{MODEL_LABEL}={model}", "-o", "name").split()

    def report(self, pod: str) -> AdaptersReport | None:
        """What a runtime pod says it holds; None where it does not answer."""
        path = f"/api/v1/namespaces/{{}}/pods/{pod}:{SERVING_PORT}/proxy{ADAPTERS_PATH}"
        try:
            return AdaptersReport.model_validate(self.get(path))
        except (ApiError, ValueError):
            return None

    def ask(self, model: str, **options: Any) -> Answer:
        """One completion through the gateway. Names carry the namespace: the tests share one gateway."""
        return ask(self.url, f"{self.namespace}/{model}", **options)

    def served(self, name: str, seconds: float = 5) -> Answer:
        """The first answer of an adapter that is ready: the gateway hears of it by a watch of its own."""
        return eventually(partial(self.ask, name), lambda answer: answer.status == 200, seconds, f"{name} served")

    def processes(self, pod: Manifest) -> list[int]:
        """The processes of a pod's first container."""
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        processes = [
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and container in _control_groups(folder)
        ]
        assert processes, f"no process of container {container}"
        return processes

    def kill_container(self, pod: Manifest) -> None:
        """SIGKILL every process of a pod's first container, as the kernel does when memory runs out."""
        for process in self.processes(pod):
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
    return bool(ready["status"] == "True" and ready.get("observedGeneration") == seen["generation"])


def _control_groups(process: Path) -> str:
    try:
        return (process / "cgroup").read_text()
    except OSError:
        return ""
