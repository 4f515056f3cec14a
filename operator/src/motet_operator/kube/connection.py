"""How the API server is reached: one source for our own client and for kopf's."""

from pathlib import Path
from typing import Any

import aiohttp
import kopf
from kubernetes.aio import client, config


async def connect(kubeconfig: Path | None) -> Any:
    """The client's configuration from a kubeconfig file, or (None) from the service account of the pod we run in.

    Raises:
        kubernetes.aio.config.ConfigException: neither is there.
    """
    settings = client.Configuration()
    # Else every request asks a thread for a netrc file. A proxy can be named in the kubeconfig; kopf uses no other.
    settings.client_session_kwargs = {"trust_env": False}
    if kubeconfig is None:
        config.load_incluster_config(client_configuration=settings)
    else:
        await config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings, persist_config=False)
    return settings


def kopf_login(settings: Any, tracing: aiohttp.TraceConfig) -> kopf.AiohttpSession:
    """The same connection for kopf. By address and not by name: not every cluster has DNS for its API server."""
    if settings.refresh_api_key_hook is not None:
        # A service account's token is a file that kubelet renews: kopf asks again when the old one is refused.
        settings.refresh_api_key_hook(settings)
    scheme, _, token = settings.api_key.get("BearerToken", "").rpartition(" ")
    info = kopf.ConnectionInfo(
        server=settings.host,
        ca_path=settings.ssl_ca_cert,
        insecure=not settings.verify_ssl,
        certificate_path=settings.cert_file,
        private_key_path=settings.key_file,
        scheme=scheme or None,
        token=token or None,
    )
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        trace_configs=[tracing],
    )
    return kopf.AiohttpSession(server=settings.host, aiohttp_session=session)
