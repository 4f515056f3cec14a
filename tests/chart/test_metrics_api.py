"""The aggregated API: registered with a certificate, or not at all."""

import base64
import ssl

from tests.chart.rendering import containers, of_kind, render


def test_both_versions_point_at_the_service_with_its_authority() -> None:
    manifests = render()
    secret = of_kind(manifests, "Secret")["motet-metrics-api"]["data"]
    services = of_kind(manifests, "APIService")
    assert set(services) == {"v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"}
    for name, item in services.items():
        spec = item["spec"]
        assert f"{spec['version']}.{spec['group']}" == name
        assert spec["service"] == {"name": "motet-metrics-api", "namespace": "motet-system", "port": 443}
        assert spec["caBundle"] == secret["ca.crt"]
        assert "insecureSkipTLSVerify" not in spec
    assert services["v1beta2.custom.metrics.k8s.io"]["spec"]["versionPriority"] > 100


def test_the_certificate_is_signed_by_the_authority_for_the_service(tmp_path) -> None:
    data = of_kind(render(), "Secret")["motet-metrics-api"]["data"]
    for name, text in data.items():
        (tmp_path / name).write_bytes(base64.b64decode(text))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname="motet-metrics-api.motet-system.svc")
    for _ in range(6):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client_side.version() is not None
    assert client_side.getpeercert()


def test_switched_off_nothing_of_it_is_left() -> None:
    manifests = render({"metricsApi": {"enabled": False}})
    assert set(containers(manifests)) == {"motet-operator", "motet-gateway", "motet-store"}
    assert of_kind(manifests, "APIService") == {}
    assert not any("metrics" in item["metadata"]["name"] for item in manifests)
    assert "metrics" in str(of_kind(render(), "Deployment"))
