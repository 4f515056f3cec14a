"""Layers and images: the same content gives the same digest, and is packed once."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from localkube_lib.archive import config_digests
from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import DAYS_KEPT, Image, ImageConfig, Layer, Tree, make_image, make_layer, write_archive


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _tree(folder: Path, text: str = "print()\n") -> Path:
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "code.py").write_text(text)
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    (folder / "link").symlink_to("program")
    return folder


def _image(layer: Layer, name: str = "motet.local/some:1") -> Image:
    return make_image(name, [layer], ImageConfig(entrypoint=("/app/program",), user="65532:65532"))


def test_digest_depends_on_content_alone(tmp_path: Path) -> None:
    one, two = _tree(tmp_path / "one"), _tree(tmp_path / "two")
    os.utime(two / "program", (1, 1))
    first = make_layer("first", lambda: [Tree(one, "/app")])
    second = make_layer("second", lambda: [Tree(two, "/app")])
    other = make_layer("other", lambda: [Tree(_tree(tmp_path / "three", "print(1)\n"), "/app")])
    assert first.digest == second.digest
    assert first.digest != other.digest
    assert _image(first).digest == _image(second).digest
    assert _image(first).digest != _image(other).digest


def test_layer_holds_the_tree_at_its_target_owned_by_root(tmp_path: Path) -> None:
    layer = make_layer("some", lambda: [Tree(_tree(tmp_path / "tree"), "/opt/app")])
    with tarfile.open(layer.path) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == sorted(members, key=list(members).index)
    assert {"opt", "opt/app", "opt/app/program", "opt/app/package/code.py", "opt/app/link"} <= set(members)
    assert members["opt/app/program"].mode == 0o755
    assert members["opt/app/link"].linkname == "program"
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}


def test_layer_with_a_known_key_is_not_packed_again(tmp_path: Path) -> None:
    layer = make_layer("known", lambda: [Tree(_tree(tmp_path / "tree"), "/app")])

    def unexpected() -> list[Tree]:
        raise AssertionError("packed again")

    assert make_layer("known", unexpected) == layer


def test_interrupted_packing_leaves_no_layer(tmp_path: Path) -> None:
    def broken() -> list[Tree]:
        raise LocalKubeError("no network")

    with pytest.raises(LocalKubeError, match="no network"):
        make_layer("some", broken)
    assert make_layer("some", lambda: [Tree(_tree(tmp_path / "tree"), "/app")]).size > 0


def test_layers_unused_for_days_make_room(tmp_path: Path, cache: Path) -> None:
    old = make_layer("old", lambda: [Tree(_tree(tmp_path / "old"), "/app")])
    make_layer("used", lambda: [Tree(_tree(tmp_path / "used"), "/app")])
    folder = cache / "motet" / "localkube" / "layers"
    long_ago = (folder / "old.json").stat().st_mtime - (DAYS_KEPT + 1) * 86400
    for name in ("old", "used"):
        os.utime(folder / f"{name}.json", (long_ago, long_ago))
    used = make_layer("used", list)
    make_layer("new", lambda: [Tree(_tree(tmp_path / "new"), "/app")])
    assert not Path(old.path).exists()
    assert Path(used.path).exists()


def test_archive_leaves_out_layers_the_receiver_has(tmp_path: Path) -> None:
    layer = make_layer("some", lambda: [Tree(_tree(tmp_path / "tree"), "/app")])
    image = _image(layer)
    whole, short = io.BytesIO(), io.BytesIO()
    write_archive(image, whole)
    write_archive(image, short, frozenset({layer.digest}))
    blob = "blobs/" + layer.digest.replace(":", "/")
    with tarfile.open(fileobj=io.BytesIO(whole.getvalue())) as tar:
        assert blob in tar.getnames()
    with tarfile.open(fileobj=io.BytesIO(short.getvalue())) as tar:
        assert blob not in tar.getnames()
        manifest = tar.extractfile("blobs/" + image.digest.replace(":", "/"))
        assert manifest is not None
        assert json.loads(manifest.read())["layers"][0]["digest"] == layer.digest


def test_archive_says_what_is_in_it(tmp_path: Path) -> None:
    image = _image(make_layer("some", lambda: [Tree(_tree(tmp_path / "tree"), "/app")]))
    path = tmp_path / "image.tar"
    with path.open("wb") as out:
        write_archive(image, out)
    config = json.loads(image.manifest)["config"]["digest"]
    assert config_digests(path) == {"motet.local/some:1": config}


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(content)
    with pytest.raises(LocalKubeError, match=r"image\.tar"):
        config_digests(path)
