"""What the command line says of the installation."""

import argparse

import pytest

from motet_operator.installation import Installation, PodSelection
from motet_operator.installation_options import add_installation_options, installation_of, pod_selection, store_url


def read(*words: str) -> Installation:
    parser = argparse.ArgumentParser()
    add_installation_options(parser)
    return installation_of(parser.parse_args(words))


def test_defaults() -> None:
    found = read()
    assert (found.runtime.image, found.runtime.pull_policy) == ("motet-runtime:latest", "IfNotPresent")
    assert (found.store, found.peers) == ("", None)


def test_peers() -> None:
    words = ("--gateway-selector=motet/app=gw,part=x", "--operator-selector=motet/app=op", "--store-selector=s/app=st")
    found = read(*words, "--metrics-namespace=monitoring", "--store-url=http://store:8002/")
    assert found.peers is not None
    assert found.peers.gateway == PodSelection("motet", {"app": "gw", "part": "x"})
    assert found.peers.operator == PodSelection("motet", {"app": "op"})
    assert found.peers.store == PodSelection("s", {"app": "st"})
    assert (found.peers.metrics_namespace, found.store) == ("monitoring", "http://store:8002")


@pytest.mark.parametrize("word", ["--gateway-selector=motet/app=gw", "--operator-selector=motet/app=op"])
def test_one_selector_alone_is_refused(word: str) -> None:
    with pytest.raises(SystemExit, match="both"):
        read(word)


def test_a_store_that_the_policies_would_cut_off_is_refused() -> None:
    selectors = ("--gateway-selector=motet/app=gw", "--operator-selector=motet/app=op")
    with pytest.raises(SystemExit, match="--store-selector"):
        read(*selectors, "--store-url=http://store:8002")
    assert read("--store-url=http://store:8002").peers is None


@pytest.mark.parametrize("text", ["", "motet", "motet/", "motet/app", "/app=gw", "Motet/app=gw", "motet/app=gw,"])
def test_what_is_no_selection_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="NAMESPACE/LABEL=VALUE"):
        pod_selection(text)


@pytest.mark.parametrize("text", ["store:8002", "ftp://store", "http://", "http://store/path"])
def test_what_is_no_store_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="http://HOST:PORT"):
        store_url(text)
