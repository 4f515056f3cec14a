"""Who may talk to the pods that serve, and to whom they may."""

from dataclasses import replace
from typing import Any

from motet_api.modeldeployment import EngineType
from motet_operator.keys import Kind
from motet_operator.models.network_policy import make_network_policy_spec
from tests.operator.manifests import PEERS, WITH_STORE, children

Rule = dict[str, Any]


def at(rules: list[Rule], number: int, side: str = "from") -> set[tuple[str, str]]:
    """(namespace, component) of all peers that the rules allow on a port; pods of any kind are `*`."""
    return {
        (
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
            peer.get("podSelector", {}).get("matchLabels", {}).get("app", "*"),
        )
        for rule in rules
        if number in {port["port"] for port in rule["ports"]}
        for peer in rule[side]
    }


def test_requests_come_from_the_gateway_and_orders_from_the_operator() -> None:
    made = make_network_policy_spec("llama", EngineType.MOTET, PEERS)
    assert made["policyTypes"] == ["Ingress", "Egress"]
    assert made["podSelector"] == {"matchLabels": {"motet.dev/model-deployment": "llama"}}
    assert at(made["ingress"], 8000) == {("motet", "gateway")}
    assert at(made["ingress"], 8001) == {("motet", "operator")}
    assert all(rule["from"] for rule in made["ingress"]), "an empty list would let everybody in"


def test_nothing_goes_out_but_to_the_store_and_for_names() -> None:
    egress = make_network_policy_spec("llama", EngineType.MOTET, PEERS)["egress"]
    assert at([rule for rule in egress if "to" in rule], 8002, "to") == {("motet", "store")}
    assert [[port["port"] for port in rule["ports"]] for rule in egress if "to" not in rule] == [[53, 53]]
    assert len(make_network_policy_spec("llama", EngineType.MOTET, replace(PEERS, store=None))["egress"]) == 1


def test_metrics_are_scraped_from_one_namespace_if_any() -> None:
    peers = replace(PEERS, metrics_namespace="monitoring")
    made = make_network_policy_spec("llama", EngineType.MOTET, peers)["ingress"]
    assert ("monitoring", "*") in at(made, 8000)
    assert at(made, 8001) == {("motet", "operator")}


def test_vllm_s_own_server_is_reached_by_the_gateway_alone() -> None:
    """Whoever reaches it can load adapters."""
    made = make_network_policy_spec("llama", EngineType.VLLM, replace(PEERS, metrics_namespace="monitoring"))["ingress"]
    assert at(made, 8000) == {("motet", "gateway")}
    assert at(made, 8001) == {("motet", "operator")}
    assert at(made, 8004) == {("motet", "gateway"), ("monitoring", "*")}


def test_only_made_where_the_peers_are_known() -> None:
    assert Kind.NETWORK_POLICY in children(WITH_STORE)
    assert Kind.NETWORK_POLICY not in children()
