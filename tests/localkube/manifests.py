"""Small objects for the tests of the cluster."""

import json
from typing import Any

IMAGE = "motet.local/python:3.11"
SERVE = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8080)"


def container(code: str, **more: Any) -> dict[str, Any]:
    """A container that runs a Python program."""
    return {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-u", "-c", code],
        **more,
    }


def pod(name: str, code: str, spec: dict[str, Any] | None = None, **more: Any) -> str:
    """A pod that runs a Python program; `more` goes into its container."""
    body = {"containers": [container(code, **more)], "terminationGracePeriodSeconds": 1, **(spec or {})}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body})


def deployment(name: str, code: str, replicas: int = 1, **more: Any) -> str:
    """A Deployment that runs a Python program."""
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container(code, **more)], "terminationGracePeriodSeconds": 1},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec})
