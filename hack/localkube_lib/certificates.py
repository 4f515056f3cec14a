"""The cluster's certificates, made by openssl once for each cluster and kept across `down`.

Three authorities, as in any cluster: one for servers and clients, one for etcd's place (unused: etcd listens on the
namespace's loopback only), and the front-proxy authority that aggregated API servers check.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from localkube_lib.errors import LocalKubeError

DAYS = "3650"


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """One certificate to be signed."""

    name: str
    common_name: str
    authority: str = "ca"
    organization: str = ""
    alternative_names: str = ""
    """As openssl writes them: `IP:127.0.0.1,DNS:localhost`. With names it is also a server's certificate."""


class Certificates:
    """Files in one folder: NAME.crt and NAME.key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def crt(self, name: str) -> str:
        """Path of a certificate."""
        return str(self.folder / f"{name}.crt")

    def key(self, name: str) -> str:
        """Path of a private key."""
        return str(self.folder / f"{name}.key")

    def ensure(self, node_ip: str, service_ip: str, node_name: str) -> None:
        """Make whatever is missing."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for authority in ("ca", "front-proxy-ca"):
            self._authority(authority)
        names = f"IP:127.0.0.1,IP:{node_ip},IP:{service_ip},DNS:localhost,DNS:kubernetes,DNS:kubernetes.default"
        node_names = f"IP:{node_ip},IP:127.0.0.1,DNS:{node_name}"
        for request in (
            CertificateRequest("apiserver", "kube-apiserver", alternative_names=names),
            CertificateRequest(
                "apiserver-kubelet-client", "kube-apiserver-kubelet-client", organization="system:masters"
            ),
            CertificateRequest("admin", "kubernetes-admin", organization="system:masters"),
            CertificateRequest("controller-manager", "system:kube-controller-manager"),
            CertificateRequest("scheduler", "system:kube-scheduler"),
            CertificateRequest("proxy", "system:kube-proxy"),
            CertificateRequest("kubelet", f"system:node:{node_name}", "ca", "system:nodes", node_names),
            CertificateRequest("front-proxy-client", "front-proxy-client", "front-proxy-ca"),
        ):
            self._signed(request)
        if not Path(self.key("service-account")).exists():
            _openssl("genrsa", "-out", self.key("service-account"), "2048")

    def _authority(self, name: str) -> None:
        if Path(self.crt(name)).exists():
            return
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", DAYS),
            *("-subj", f"/CN={name}", "-keyout", self.key(name), "-out", self.crt(name)),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def _signed(self, request: CertificateRequest) -> None:
        if Path(self.crt(request.name)).exists():
            return
        subject = (f"/O={request.organization}" if request.organization else "") + f"/CN={request.common_name}"
        usage = "extendedKeyUsage=clientAuth" + (",serverAuth" if request.alternative_names else "")
        extensions = ["-addext", usage]
        if request.alternative_names:
            extensions += ["-addext", f"subjectAltName={request.alternative_names}"]
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", DAYS),
            *("-CA", self.crt(request.authority), "-CAkey", self.key(request.authority), "-subj", subject),
            *("-addext", "basicConstraints=critical,CA:FALSE", *extensions),
            *("-keyout", self.key(request.name), "-out", self.crt(request.name)),
        )


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalKubeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
