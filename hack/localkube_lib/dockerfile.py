"""Reads from a Dockerfile how its image is run, so that images put together without Docker run the same way."""

import json
import shlex
from pathlib import Path

from localkube_lib.errors import LocalKubeError
from localkube_lib.oci import ImageConfig


def image_config(dockerfile: Path) -> ImageConfig:
    """Entry point, command, environment, user and working directory of the last stage.

    Raises:
        LocalKubeError: there is no such file, or its entry point is missing or not in the JSON form.
    """
    if not dockerfile.exists():
        raise LocalKubeError(f"{dockerfile} does not exist")
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    user, working_dir = "", "/"
    for instruction, value in _instructions(dockerfile.read_text()):
        match instruction:
            case "FROM":
                entrypoint, command, env, user, working_dir = (), (), {}, "", "/"
            case "ENTRYPOINT" | "CMD":
                try:
                    words = tuple(json.loads(value))
                except json.JSONDecodeError as error:
                    raise LocalKubeError(f"{dockerfile}: write {instruction} as a JSON list") from error
                entrypoint, command = (words, command) if instruction == "ENTRYPOINT" else (entrypoint, words)
            case "ENV":
                env |= dict(word.split("=", 1) for word in shlex.split(value))
            case "USER":
                user = value
            case "WORKDIR":
                working_dir = value
    if not entrypoint:
        raise LocalKubeError(f"{dockerfile}: the last stage has no ENTRYPOINT")
    return ImageConfig(entrypoint, command, tuple(f"{key}={value}" for key, value in env.items()), user, working_dir)


def _instructions(text: str) -> list[tuple[str, str]]:
    joined = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).replace("\\\n", " ")
    pairs = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word.upper(), value.strip()) for word, _, value in pairs]
