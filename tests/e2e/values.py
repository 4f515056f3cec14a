"""How the tests install the chart: with servers of their own to fetch from, and bounds that can be reached."""

from typing import Any, Final

from localkube_lib.components import NODE_SUBNET

RESTRICTED: Final = "pod-security.kubernetes.io/enforce=restricted"
"""The API server refuses a pod that asks for more than the restricted standard allows, ours included."""
NARROW: Final = "e2e-narrow"
"""A namespace that may have few adapters, from few sources."""
MOST_ADAPTERS: Final = 2
VALUES: Final[dict[str, Any]] = {
    "store": {"persistence": {"size": "1Gi"}, "secrets": "Cluster", "maxFileSize": "8Mi"},
    "policy": {
        "privateNetworks": [NODE_SUBNET],
        "namespaces": {
            NARROW: {"maxAdapters": MOST_ADAPTERS, "allowedSources": ["pvc://*", "http://10.77.0.2:*/adapters/*"]}
        },
    },
}
