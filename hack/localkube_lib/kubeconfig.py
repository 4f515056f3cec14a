"""Kubeconfig files for the administrator and for each component."""

import base64
import json
from pathlib import Path

from localkube_lib.certificates import Certificates
from localkube_lib.files import write_changed


def write_kubeconfig(path: Path, server: str, certificates: Certificates, client: str) -> None:
    """Write a kubeconfig (JSON, which is YAML) that holds its certificates, so that it can be copied elsewhere."""

    def inline(name: str) -> str:
        return base64.b64encode(Path(name).read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "localkube",
                "cluster": {"server": server, "certificate-authority-data": inline(certificates.crt("ca"))},
            }
        ],
        "users": [
            {
                "name": client,
                "user": {
                    "client-certificate-data": inline(certificates.crt(client)),
                    "client-key-data": inline(certificates.key(client)),
                },
            }
        ],
        "contexts": [{"name": "localkube", "context": {"cluster": "localkube", "user": client}}],
        "current-context": "localkube",
    }
    write_changed(path, json.dumps(document, indent=1), mode=0o600)
