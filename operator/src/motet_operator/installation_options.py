"""The options of `motet-operator run` that say what the installation is like."""

import argparse
import re
from typing import Final

from motet_operator.installation import Installation, Peers, PodSelection, RuntimeImage

_FORM: Final = "NAMESPACE/LABEL=VALUE[,...]"
_LABEL: Final = r"[A-Za-z0-9][-A-Za-z0-9_./]*=[-A-Za-z0-9_.]*"
_SELECTION: Final = re.compile(rf"(?P<namespace>[a-z0-9]([-a-z0-9]*[a-z0-9])?)/(?P<labels>{_LABEL}(,{_LABEL})*)")


def add_installation_options(command: argparse.ArgumentParser) -> None:
    """Add them."""
    command.add_argument(
        "--runtime-image", default="motet-runtime:latest", help="unless a ModelDeployment names another"
    )
    command.add_argument(
        "--runtime-image-pull-policy", default="IfNotPresent", choices=["Always", "IfNotPresent", "Never"]
    )
    command.add_argument("--store-url", type=store_url, default="", help="the adapter store, as pods reach it")
    command.add_argument(
        "--gateway-selector",
        type=pod_selection,
        metavar=_FORM,
        help="the gateway's pods; with --operator-selector, NetworkPolicies keep all others from the runtime pods",
    )
    command.add_argument("--operator-selector", type=pod_selection, metavar=_FORM, help="the operator's own pods")
    command.add_argument("--store-selector", type=pod_selection, metavar=_FORM, help="the adapter store's pods")
    command.add_argument(
        "--metrics-namespace", default="", help="pods of this namespace may scrape the runtime pods' metrics"
    )


def installation_of(options: argparse.Namespace) -> Installation:
    """What they say."""
    gateway, operator = options.gateway_selector, options.operator_selector
    if bool(gateway) != bool(operator):
        raise SystemExit("motet-operator: give --gateway-selector and --operator-selector both, or neither of them")
    if gateway and options.store_url and not options.store_selector:
        raise SystemExit("motet-operator: give --store-selector too: pods could not reach the store of --store-url")
    return Installation(
        runtime=RuntimeImage(options.runtime_image, options.runtime_image_pull_policy),
        store=options.store_url,
        peers=Peers(gateway, operator, options.store_selector, options.metrics_namespace)
        if gateway and operator
        else None,
    )


def pod_selection(text: str) -> PodSelection:
    """Read NAMESPACE/LABEL=VALUE[,LABEL=VALUE...]. Raises: ArgumentTypeError."""
    found = _SELECTION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAMESPACE/LABEL=VALUE[,LABEL=VALUE...]")
    labels = dict(pair.split("=", 1) for pair in found["labels"].split(","))
    return PodSelection(found["namespace"], labels)


def store_url(text: str) -> str:
    """Read http(s)://HOST[:PORT], or nothing. Raises: ArgumentTypeError."""
    if not re.fullmatch(r"(https?://[^/\s]+/?)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form http://HOST:PORT")
    return text.rstrip("/")
