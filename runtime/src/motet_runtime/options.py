"""The command line's options: what they are called, what they may be, and the settings they make."""

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from motet_api.dtypes import DType
from motet_api.identity import DIGEST_PATTERN, Digest
from motet_api.names import ADMIN_PORT, CLAIM_MOUNT_ROOT, REPORT_PORT, SERVING_PORT
from motet_runtime.settings import EngineOptions, FetchSettings, Settings


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, each within its range; a wrong one ends the process with one line that names it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "serve":
        if options.port == options.admin_port:
            parser.error(f"argument --admin-port: {options.admin_port} is --port too: give another")
        if not _name(options).isascii():
            parser.error(f"argument --model-name: {_name(options)!r} goes into headers: give a name in ASCII")
    return options


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the options of `serve` make."""
    return Settings(
        model=_uri(options),
        model_name=_name(options),
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


def fetch_settings_of(options: argparse.Namespace) -> FetchSettings:
    """The settings that the options of `fetch` make."""
    return FetchSettings(options.store, options.artifact, options.to, options.patience_seconds)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line: the usage of so many options would hide it."""
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help lists the options)\n")


def _parser() -> _Parser:
    parser = _Parser(prog="motet-runtime", description="Serve one base model with many LoRA adapters.")
    commands = parser.add_subparsers(dest="command", required=True)
    defaults = argparse.ArgumentDefaultsHelpFormatter
    _add_serve(commands.add_parser("serve", help="serve a base model", formatter_class=defaults))
    help_text = "beside vLLM: keep its adapters as the operator wants them"
    _add_agent(commands.add_parser("agent", help=help_text, formatter_class=defaults))
    _add_fetch(commands.add_parser("fetch", help="fetch an artifact from the store", formatter_class=defaults))
    digest = commands.add_parser("digest", help="print the content digest of an adapter's folder")
    digest.add_argument("folder", type=Path)
    return parser


def _add_serve(serve: argparse.ArgumentParser) -> None:
    add = serve.add_argument
    add("--model", required=True, help="folder of the base: a path, file:///path or pvc://CLAIM/path")
    add("--model-name", help="name it is served under (default: the folder's name)")
    add("--pod-name", default=os.environ.get("POD_NAME", ""), help="said in response headers")
    add("--claim-root", type=Path, default=Path(CLAIM_MOUNT_ROOT), help="where claims are mounted")
    add("--host", default="0.0.0.0")  # noqa: S104 - a pod's only purpose is to be reached
    add("--port", type=_whole(1, 65535), default=SERVING_PORT)
    add("--admin-port", type=_whole(1, 65535), default=ADMIN_PORT)
    add("--dtype", type=DType, choices=list(DType), default=DType.AUTO)
    add("--max-model-len", type=_whole(2), help="most tokens of prompt and answer together (default: the model's)")
    add("--max-batch-size", type=_whole(1), default=32, help="requests that run at once")
    add("--max-step-tokens", type=_whole(1), default=512, help="tokens computed in one step")
    add(
        "--max-stretch",
        type=_number(1.0),
        default=2.2,
        help="how many times as long as alone a step of running answers may take beside a long prompt",
    )
    add("--kv-memory", type=_whole(1), help="MiB for keys and values (default: a quarter of the memory)")
    add("--block-size", type=_whole(1), default=16, help="tokens in a block of keys and values")
    add("--max-rank", type=_whole(1), default=64, help="adapters of a higher rank are refused")
    add("--adapter-slots", type=_whole(1), default=64, help="adapters that can be computed with at once")
    add("--adapter-memory", type=_whole(1), help="MiB for the slots (default: a tenth of the memory)")
    add("--adapter-host-memory", type=_whole(0), default=2048, help="MiB of adapters kept in host memory")
    add("--adapter-disk", type=_whole(0), default=10240, help="MiB of adapters kept on local disk")
    add("--adapter-cache", type=Path, default=_cache_folder() / "adapters", help="folder for them on local disk")
    add("--threads", type=_whole(1), help="compute threads (default: the container's CPU limit)")
    add("--drain-grace-seconds", type=_number(0.0), default=5.0, help="serve on after SIGTERM for this long")
    add("--drain-timeout-seconds", type=_number(0.0), default=60.0, help="then wait this long for requests in flight")
    add("--log-level", choices=["debug", "info", "warning", "error"], default="info")


def _add_agent(agent: argparse.ArgumentParser) -> None:
    add = agent.add_argument
    add("--engine-url", default="http://127.0.0.1:8000", help="vLLM's OpenAI server, as the agent reaches it")
    add("--model", help="the base, file:///path or pvc://CLAIM/path: adapters are checked against it, vLLM does not")
    add("--model-name", required=True, help="name of the ModelDeployment")
    add("--host", default="0.0.0.0")  # noqa: S104 - a pod's only purpose is to be reached
    add("--admin-port", type=_whole(1, 65535), default=ADMIN_PORT)
    add("--report-port", type=_whole(1, 65535), default=REPORT_PORT, help="what the pod holds and metrics, to be read")
    add("--claim-root", type=Path, default=Path(CLAIM_MOUNT_ROOT), help="where claims are mounted")
    add("--max-batch-size", type=_whole(1), default=32, help="requests that the engine runs at once")
    add("--max-rank", type=_whole(1), default=64, help="adapters of a higher rank are refused")
    add("--adapter-cache", type=Path, default=_cache_folder() / "adapters", help="folder that the engine sees too")
    add("--drain-grace-seconds", type=_number(0.0), default=5.0, help="say so for this long after SIGTERM, then end")
    add("--log-level", choices=["debug", "info", "warning", "error"], default="info")


def _add_fetch(fetch: argparse.ArgumentParser) -> None:
    add = fetch.add_argument
    add("--store", type=_address, required=True, help="address of the store, http://HOST:PORT")
    add("--artifact", type=_digest, required=True, help="digest of the artifact, sha256:HEX")
    add("--to", type=Path, required=True, help="folder for its files; made if it is not there")
    add("--patience-seconds", type=_number(0.0), default=600.0, help="wait this long for a store that brings nothing")
    add("--log-level", choices=["debug", "info", "warning", "error"], default="info")


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} will not do: give a whole number {wanted}")
        return value

    return parse


def _number(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"{text!r} will not do: give a number of at least {least:g}")
        return value

    return parse


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise argparse.ArgumentTypeError(f"{text!r} will not do: give http://HOST:PORT")
    return text.rstrip("/")


def _digest(text: str) -> Digest:
    if not re.fullmatch(DIGEST_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} will not do: give sha256: and 64 hexadecimal digits")
    return Digest(text)


def _uri(options: argparse.Namespace) -> str:
    model: str = options.model
    return model if "://" in model else f"file://{Path(model).resolve()}"


def _name(options: argparse.Namespace) -> str:
    return options.model_name or _uri(options).rstrip("/").rpartition("/")[2]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motet"
