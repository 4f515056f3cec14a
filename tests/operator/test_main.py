"""The command line: what is missing or malformed is said before anything starts."""

import argparse
from pathlib import Path

import pytest

from motet_operator.adapter_options import service_name
from motet_operator.main import main
from motet_operator.operate import open_policy

TLS = ["--tls-cert", "x.crt", "--tls-key", "x.key"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "command"),
        (["metrics-api", *TLS], "--gateway-service"),
        (["metrics-api", "--gateway-service", "gateway", *TLS], "NAMESPACE/NAME"),
        (["metrics-api", "--gateway-service", "a/b"], "--tls-cert"),
        (["run", "--runtime-image-pull-policy", "Sometimes"], "invalid choice"),
        (["run", "--unknown"], "unrecognized"),
        (["store", "--disk", "1Gi"], "--data"),
        (["store", "--data", "d", "--disk", "1 Gi"], "500Mi or 50Gi"),
        (["store", "--data", "d", "--disk", "1Gi", "--secrets", "all"], "invalid choice"),
        (["run", "--lease", "motet-operator"], "NAMESPACE/NAME"),
        (["run", "--gateway-service", "gateway"], "NAMESPACE/NAME"),
        (["run", "--store-admin-url", "store"], "http://HOST:PORT"),
        (["run", "--api-qps", "0"], "--api-qps"),
        (["run", "--api-qps", "nan"], "not a number above 0"),
        (["run", "--api-burst", "1.5"], "not a whole number above 0"),
        (["run", "--resync-seconds", "-1"], "--resync-seconds"),
        (["run", "--condition-metrics-limit", "-1"], "--condition-metrics-limit"),
        (["metrics-api", "--log-format", "xml"], "invalid choice"),
    ],
)
def test_wrong_words_end_with_usage(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_policy_that_is_none_ends_the_start(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("namespaces: {speech: {maxAdapters: -1}}")
    with pytest.raises(SystemExit, match=r"--policy .*namespaces\.speech\.maxAdapters"):
        open_policy(path)
    with pytest.raises(SystemExit, match="No such file"):
        open_policy(tmp_path / "nowhere.yaml")
    assert open_policy(None).current.of("speech").max_adapters is None


def test_a_service_name() -> None:
    assert service_name("motet-system/motet-gateway") == ("motet-system", "motet-gateway")
    for wrong in ("gateway", "/gateway", "a/", "a/b/c"):
        with pytest.raises(argparse.ArgumentTypeError):
            service_name(wrong)
