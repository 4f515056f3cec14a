"""`motet-runtime`: the command line, and the only place where the parts are put together."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from motet_api.modeldeployment import DType
from motet_api.names import ADMIN_PORT, CLAIM_MOUNT_ROOT, SERVING_PORT
from motet_runtime.adapters.artifact import folder_digest
from motet_runtime.adapters.residency import Residency
from motet_runtime.errors import AdapterError, ModelError
from motet_runtime.http.app import make_apps
from motet_runtime.http.listeners import listening
from motet_runtime.lifecycle import Lifecycle
from motet_runtime.loading import EngineHost
from motet_runtime.logs import configure_logging
from motet_runtime.metrics import RuntimeMetrics
from motet_runtime.service import Service
from motet_runtime.settings import EngineOptions, Settings

_log = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="motet-runtime", description="Serve one base model with many LoRA adapters.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve", help="serve a base model", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    serve.add_argument("--model", required=True, help="folder of the base: a path, file:///path or pvc://CLAIM/path")
    serve.add_argument("--model-name", help="name it is served under (default: the folder's name)")
    serve.add_argument("--pod-name", default=os.environ.get("POD_NAME", ""), help="said in response headers")
    serve.add_argument("--claim-root", type=Path, default=Path(CLAIM_MOUNT_ROOT), help="where claims are mounted")
    serve.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod's only purpose is to be reached
    serve.add_argument("--port", type=int, default=SERVING_PORT)
    serve.add_argument("--admin-port", type=int, default=ADMIN_PORT)
    serve.add_argument("--dtype", type=DType, choices=list(DType), default=DType.AUTO)
    serve.add_argument(
        "--max-model-len", type=int, help="most tokens of prompt and answer together (default: the model's)"
    )
    serve.add_argument("--max-batch-size", type=int, default=32, help="requests that run at once")
    serve.add_argument("--max-step-tokens", type=int, default=512, help="tokens computed in one step")
    serve.add_argument(
        "--max-stretch",
        type=float,
        default=2.5,
        help="how many times as long as alone a step of running answers may take beside a long prompt",
    )
    serve.add_argument("--kv-memory", type=int, help="MiB for keys and values (default: a quarter of the memory)")
    serve.add_argument("--block-size", type=int, default=16, help="tokens in a block of keys and values")
    serve.add_argument("--max-rank", type=int, default=64, help="adapters of a higher rank are refused")
    serve.add_argument("--adapter-slots", type=int, default=64, help="adapters that can be computed with at once")
    serve.add_argument("--adapter-memory", type=int, help="MiB for the slots (default: a tenth of the memory)")
    serve.add_argument("--adapter-host-memory", type=int, default=2048, help="MiB of adapters kept in host memory")
    serve.add_argument("--adapter-disk", type=int, default=10240, help="MiB of adapters kept on local disk")
    serve.add_argument(
        "--adapter-cache", type=Path, default=_cache_folder() / "adapters", help="folder for them on local disk"
    )
    serve.add_argument("--threads", type=int, help="compute threads (default: the container's CPU limit)")
    serve.add_argument("--drain-grace-seconds", type=float, default=5.0, help="serve on after SIGTERM for this long")
    serve.add_argument(
        "--drain-timeout-seconds", type=float, default=60.0, help="then wait this long for requests in flight"
    )
    serve.add_argument("--log-level", default="info")
    digest = commands.add_parser("digest", help="print the content digest of an adapter's folder")
    digest.add_argument("folder", type=Path)
    return parser


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motet"


def _settings(options: argparse.Namespace) -> Settings:
    model = options.model if "://" in options.model else f"file://{Path(options.model).resolve()}"
    return Settings(
        model=model,
        model_name=options.model_name or model.rstrip("/").rpartition("/")[2],
        pod_name=options.pod_name,
        claim_root=options.claim_root,
        host=options.host,
        port=options.port,
        admin_port=options.admin_port,
        dtype=options.dtype,
        engine=EngineOptions(
            max_batch_size=options.max_batch_size,
            max_step_tokens=max(options.max_step_tokens, options.max_batch_size),
            max_rank=options.max_rank,
            adapter_slots=options.adapter_slots,
            block_size=options.block_size,
            kv_bytes=options.kv_memory and options.kv_memory << 20,
            adapter_bytes=options.adapter_memory and options.adapter_memory << 20,
            max_tokens=options.max_model_len,
        ),
        max_stretch=options.max_stretch,
        adapter_cache=options.adapter_cache,
        adapter_disk_bytes=options.adapter_disk << 20,
        adapter_host_bytes=options.adapter_host_memory << 20,
        threads=options.threads,
        drain_grace_seconds=options.drain_grace_seconds,
        drain_timeout_seconds=options.drain_timeout_seconds,
    )


async def serve(settings: Settings, started: float) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the exit code. `started`: process start, Unix seconds."""
    metrics = RuntimeMetrics(CollectorRegistry())
    lifecycle = Lifecycle(time.monotonic)
    host = EngineHost(settings, metrics, started)
    residency = Residency(host, time.monotonic)
    service = Service(settings, residency, lifecycle, metrics)
    serving, admin = make_apps(service)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening([(serving, settings.port), (admin, settings.admin_port)], settings.host):
        _log.info("listening", extra={"port": settings.port, "admin_port": settings.admin_port})
        starting = asyncio.create_task(host.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return 0
        try:
            service.base_loaded(starting.result())
        except ModelError as error:
            _log.error("the base model cannot be served: %s", error)
            return 1
        _log.info("base loaded", extra={"seconds_since_start": round(time.time() - started, 3)})
        reconciling = asyncio.create_task(residency.run())
        await asyncio.wait({reconciling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if reconciling.done():
            reconciling.result()
        _log.info("draining", extra={"in_flight": lifecycle.in_flight})
        finished = await lifecycle.drain(settings.drain_grace_seconds, settings.drain_timeout_seconds)
        reconciling.cancel()
        _log.info("drained", extra={"finished": finished})
    await host.stop()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = _parser().parse_args(arguments)
    if options.command == "digest":
        try:
            print(folder_digest(options.folder))
        except AdapterError as error:
            print(f"motet-runtime: {error.message}", file=sys.stderr)
            return 1
        return 0
    configure_logging(options.log_level)
    return asyncio.run(serve(_settings(options), _process_start()))


def _process_start() -> float:
    """When this process started, in Unix seconds: interpreter start and imports count as start-up too."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
