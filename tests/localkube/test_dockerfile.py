"""How an image is run is read from the last stage of its Dockerfile."""

from pathlib import Path

import pytest

from localkube_lib.dockerfile import image_config
from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import ImageConfig

DOCKERFILE = """\
ARG BASE=python:3.11
FROM ${BASE} AS build
ENV BUILD=yes
USER root
ENTRYPOINT ["builder"]

FROM ${BASE}
# a comment
ENV PATH=/opt/motet/bin:/usr/bin \\
    GREETING="hello there"
ENV MORE=1
WORKDIR /srv
USER 65532:65532
ENTRYPOINT ["motet-gateway"]
CMD ["serve", "--port=1"]
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "Dockerfile"
    path.write_text(text)
    return path


def test_last_stage_counts(tmp_path: Path) -> None:
    assert image_config(_write(tmp_path, DOCKERFILE)) == ImageConfig(
        entrypoint=("motet-gateway",),
        command=("serve", "--port=1"),
        env=("PATH=/opt/motet/bin:/usr/bin", "GREETING=hello there", "MORE=1"),
        user="65532:65532",
        working_dir="/srv",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM base\nUSER 1\n", "no ENTRYPOINT"),
        ("FROM base\nENTRYPOINT motet-gateway serve\n", "as a JSON list"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LocalKubeError, match=message):
        image_config(_write(tmp_path, text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError, match="Dockerfile does not exist"):
        image_config(tmp_path / "Dockerfile")
