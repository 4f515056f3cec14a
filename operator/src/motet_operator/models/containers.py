"""What every container that Motet makes has in common. Pure."""

from typing import Any, Final

from motet_api.names import ADMIN_PORT_NAME

_USER: Final = 65532
_TMP: Final = "motet-tmp"


def restricted() -> dict[str, Any]:
    """The security context: what the restricted standard asks for, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def restricted_pod() -> dict[str, Any]:
    """The security context of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def tmp_volume() -> dict[str, Any]:
    """What stands in for the read-only root's /tmp."""
    return {"name": _TMP, "emptyDir": {}}


def tmp_mount() -> dict[str, Any]:
    """Where it is."""
    return {"name": _TMP, "mountPath": "/tmp"}  # noqa: S108 - a path in the pod, whose root is read-only


def pod_name() -> dict[str, Any]:
    """The variable that tells a container its pod's name."""
    return {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}


def port(name: str, number: int) -> dict[str, Any]:
    """A port, with every field that the API server would fill in."""
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def probe(path: str, period: int, timeout: int, failures: int, port: str = ADMIN_PORT_NAME) -> dict[str, Any]:
    """An HTTP probe."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def flags(options: dict[str, Any]) -> list[str]:
    """`--name=value` of each option that has a value."""
    return [f"--{name}={value}" for name, value in options.items() if value is not None]
