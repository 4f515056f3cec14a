"""What the store knows, as it lies on disk: written whole and renamed, one small JSON file for each thing.

A record that cannot be read is dropped: it is fetched anew.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from motet_api.identity import Digest
from motet_api.objects import KubeModel
from motet_api.reasons import AdapterReason
from motet_api.store import ArtifactFile, ArtifactKind
from motet_operator.store.wanted import Wanted

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=KubeModel)


class FetchedFile(KubeModel):
    """One file as it was fetched. `identity` is the source's word for these bytes."""

    name: str
    identity: str
    sha256: str
    size: int


class Resolution(KubeModel):
    """What a source meant at one time. `signature` is the content of the signature file, empty if there is none."""

    wanted: Wanted
    digest: Digest
    revision: str
    files: list[FetchedFile]
    signature: str = ""
    at: float


class Failure(KubeModel):
    """Why something is not there, and when it is tried again. `attempts` in a row have failed."""

    wanted: Wanted
    reason: AdapterReason
    message: str
    attempts: int
    at: float
    again_at: float


class Fit(KubeModel):
    """Whether an adapter fits a base: `reason` says why not. `held_bytes` is what it takes on a pod there."""

    reason: AdapterReason | None = None
    message: str = ""
    held_bytes: int | None = None


class Facts(KubeModel):
    """What an adapter's files say of it; all empty for a base. `size_bytes` is that of the tensors."""

    rank: int | None = None
    target_modules: list[str] = []
    size_bytes: int | None = None


class Artifact(KubeModel):
    """A verified artifact. `fits` is by digest of the base's description."""

    digest: Digest
    kind: ArtifactKind
    files: list[ArtifactFile]
    facts: Facts = Facts()
    fits: dict[Digest, Fit] = {}

    @property
    def stored_bytes(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)

    def sha256_of(self, name: str) -> str:
        """The blob of one of its files."""
        return next(file.sha256 for file in self.files if file.name == name)


class RecordFiles:
    """One kind of record: a folder with a file for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, key: str, record: KubeModel) -> None:
        """Keep a record. Raises: OSError."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(record.model_dump_json(by_alias=True))
        new.replace(path)

    def remove(self, key: str) -> None:
        """Forget a record."""
        self._path(key).unlink(missing_ok=True)

    def touch(self, key: str, at: float) -> None:
        """Note when it was used last, roughly."""
        try:
            os.utime(self._path(key), (at, at))
        except FileNotFoundError:
            return

    def read(self, model: type[Record]) -> Iterator[tuple[Record, float]]:
        """Every record that can be read, and when it was written or touched."""
        for path in sorted(self._folder.glob("*/*.json")):
            try:
                yield model.model_validate_json(path.read_bytes()), path.stat().st_mtime
            except (ValidationError, OSError) as error:
                log.warning("%s cannot be read and is dropped: %s", path, error)
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        name = key.removeprefix("sha256:")
        return self._folder / name[:2] / f"{name}.json"
