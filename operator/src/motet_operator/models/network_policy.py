"""Who may talk to the pods that serve, and to whom they may: requests from the gateway, orders from the operator. Pure.

The kubelet's probes are not named here: they come from the pod's own node, which network policies do not hold back in
any usual implementation.
"""

from typing import Any, Final

from motet_api.modeldeployment import EngineType
from motet_api.names import ADMIN_PORT, MODEL_LABEL, REPORT_PORT, SERVING_PORT, STORE_PORT
from motet_operator.installation import Peers, PodSelection

_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
_DNS_PORT: Final = 53


def make_network_policy_spec(name: str, engine: EngineType, peers: Peers) -> dict[str, Any]:
    """The NetworkPolicy's spec.

    The admin port, where adapters are loaded, is the operator's alone. What is open for requests, and for metrics, can
    change nothing; of vLLM's server it can (it has no port of its own for that), so only the gateway reaches it.
    """
    vllm = engine is EngineType.VLLM
    requests = [_port(SERVING_PORT), _port(REPORT_PORT)] if vllm else [_port(SERVING_PORT)]
    ingress = [
        {"from": [_pods(peers.gateway)], "ports": requests},
        {"from": [_pods(peers.operator)], "ports": [_port(ADMIN_PORT)]},
    ]
    if peers.metrics_namespace:
        scraped = [_port(REPORT_PORT if vllm else SERVING_PORT)]
        ingress.append({"from": [_namespace(peers.metrics_namespace)], "ports": scraped})
    egress: list[dict[str, Any]] = [{"ports": [_port(_DNS_PORT, "UDP"), _port(_DNS_PORT)]}]
    if peers.store is not None:
        egress.append({"to": [_pods(peers.store)], "ports": [_port(STORE_PORT)]})
    return {
        "podSelector": {"matchLabels": {MODEL_LABEL: name}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }


def _pods(selection: PodSelection) -> dict[str, Any]:
    return _namespace(selection.namespace) | {"podSelector": {"matchLabels": dict(selection.labels)}}


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE_LABEL: name}}}


def _port(number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"protocol": protocol, "port": number}
