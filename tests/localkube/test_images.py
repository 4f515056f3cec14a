"""What the node's image store is given: once, and no layer twice."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from localkube_lib.base_image import base_layer, python_image
from localkube_lib.cluster import Cluster
from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import Image, ImageConfig, Tree, make_image, make_layer, write_archive
from tests.localkube.manifests import IMAGE, pod

pytestmark = pytest.mark.localkube

REFERENCE = "motet.local/sample:1"


def _image(folder: Path, text: str) -> Image:
    folder.mkdir(parents=True)
    (folder / "code.py").write_text(text)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    layer = make_layer(f"test-{key}", lambda: [Tree(folder, "/app")])
    return make_image(REFERENCE, [base_layer(), layer], ImageConfig(("python3", "/app/code.py"), user="65532:65532"))


def test_image_is_imported_once_and_a_change_alone_is_sent(
    cluster: Cluster, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = cluster.images()
    assert not store.load(python_image(IMAGE)), "the cluster has it already"
    for number in (1, 2):
        image = _image(tmp_path / str(number), f"print('version {number}')\n")
        capsys.readouterr()
        assert store.load(image)
        assert "(0 MB of layers)" in capsys.readouterr().err, "the base layer is not sent again"
        assert not store.load(image)
        manifest = json.loads(pod(f"v{number}", "", {"restartPolicy": "Never"}, image=REFERENCE))
        del manifest["spec"]["containers"][0]["command"]
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(manifest))
        done = "--for=jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("wait", "-n", namespace, f"pod/v{number}", done, "--timeout=60s")
        assert cluster.kubectl("logs", "-n", namespace, f"v{number}").strip() == f"version {number}"


def test_oci_archive_is_loaded_once(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    with path.open("wb") as out:
        write_archive(_image(tmp_path / "code", f"# {tmp_path}\n"), out)
    assert cluster.images().load_archive(path)
    assert not cluster.images().load_archive(path)


def test_docker_archive_is_loaded_once(cluster: Cluster, tmp_path: Path) -> None:
    image = _image(tmp_path / "code", f"# docker {tmp_path}\n")
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        for layer in image.layers:
            tar.add(layer.path, f"{layer.digest.partition(':')[2]}/layer.tar")
        entry = {
            "Config": "config.json",
            "RepoTags": ["sample:docker"],
            "Layers": [f"{layer.digest.partition(':')[2]}/layer.tar" for layer in image.layers],
        }
        for name, content in (("config.json", image.config), ("manifest.json", json.dumps([entry]).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert cluster.images().load_archive(path)
    assert not cluster.images().load_archive(path)


def test_file_that_is_no_archive_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_text("no")
    with pytest.raises(LocalKubeError, match=r"image\.tar"):
        cluster.images().load_archive(tmp_path / "image.tar")
