"""Where adapters come from: an S3 server and a web server inside the cluster's network, as processes of the host.

Pods reach them at the node's address; what is put into them comes from the host, by a forward or by the file system.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from localkube_lib import binaries, netns
from localkube_lib.cluster import Cluster
from localkube_lib.components import NODE_IP
from tests.waiting import eventually

S3_PORT, WEB_PORT = 9000, 9001
BUCKET = "adapters"
ACCESS_KEY, SECRET_KEY = "e2e-access", "e2e-secret-of-forty-characters-at-least"


@dataclass(frozen=True, slots=True)
class Origins:
    """The servers; `web` is the folder that the web server shows."""

    s3: Any
    web: Path

    @property
    def credentials(self) -> dict[str, str]:
        """The keys of a Secret for the bucket."""
        endpoint = f"http://{NODE_IP}:{S3_PORT}"
        return {"accessKeyId": ACCESS_KEY, "secretAccessKey": SECRET_KEY, "endpoint": endpoint}

    def into_bucket(self, folder: Path, name: str) -> str:
        """Put a folder's files into the bucket; returns their URI."""
        for path in folder.iterdir():
            self.s3.put_object(Bucket=BUCKET, Key=f"{name}/{path.name}", Body=path.read_bytes())
        return f"s3://{BUCKET}/{name}"

    def onto_web(self, folder: Path, name: str) -> str:
        """Have the web server show a folder's files in place of what was there; returns their URI."""
        target = self.web / BUCKET / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        return web_uri(name)


def web_uri(name: str) -> str:
    """Where the web server shows a folder."""
    return f"http://{NODE_IP}:{WEB_PORT}/{BUCKET}/{name}"


@contextmanager
def origins(cluster: Cluster, folder: Path) -> Iterator[Origins]:
    """Run both while the block runs, empty at first."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("data", "meta", "web"):
        (folder / name).mkdir(parents=True)
    inside = netns.enter(cluster.paths.netns)
    keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY]
    kept = ["posix", "--sidecar", str(folder / "meta"), str(folder / "data")]
    commands = {
        "versitygw": [str(binaries.versitygw()), "--port", f"{NODE_IP}:{S3_PORT}", *keys, *kept],
        "web": [sys.executable, "-m", "http.server", "--bind", NODE_IP, "-d", str(folder / "web"), str(WEB_PORT)],
    }
    for name, command in commands.items():
        cluster.processes.start(name, [*inside, *command])
    port = cluster.forward(f"{NODE_IP}:{S3_PORT}")
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )
    try:
        eventually(lambda: _answers(s3), bool, 20, "the S3 server")
        s3.create_bucket(Bucket=BUCKET)
        yield Origins(s3, folder / "web")
    finally:
        s3.close()
        for name in commands:
            cluster.processes.stop(name)


def _answers(s3: Any) -> bool:
    try:
        s3.list_buckets()
    except boto3.exceptions.botocore.exceptions.BotoCoreError:
        return False
    return True
