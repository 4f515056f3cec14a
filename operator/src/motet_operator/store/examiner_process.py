"""The process that looks at files: one question a line on its standard input, one answer a line on its output.

Invariant: a question takes no more processor time and no more memory than the limits on the command line say, whatever
is in the files. It opens only the files that it is told, writes nothing and knows no network.

    python -m motet_operator.store.examiner_process MEMORY_BYTES CPU_SECONDS
"""

import json
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from motet_api.artifact.errors import ArtifactError
from motet_api.reasons import AdapterReason
from motet_api.wire import BaseDescription
from motet_operator.store.examination import examine_adapter, examine_base, fit_adapter

_BYTES_PER_SECOND: Final = 20_000_000
"""Weights that are looked at are given this much more time: a tenth of what a slow core does."""


class _OutOfTimeError(Exception):
    """The question took its processor time."""


def _out_of_time(number: int, frame: FrameType | None) -> NoReturn:
    raise _OutOfTimeError


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The facts, or why the files are refused."""
    files = {name: Path(path) for name, path in question["files"].items()}
    digest = question["digest"]
    try:
        match question["ask"]:
            case "adapter":
                facts = examine_adapter(digest, files["config"], files["weights"])
            case "base":
                facts = examine_base(files)
            case "fit":
                base = BaseDescription.model_validate(question["base"])
                return fit_adapter(digest, files["config"], files["weights"], base).to_wire()
            case other:
                raise ValueError(f"{other!r} cannot be asked")
    except ArtifactError as error:
        return {"reason": error.reason, "message": error.message[:2000]}
    except MemoryError:
        return {
            "reason": AdapterReason.CORRUPT_WEIGHTS,
            "message": "the files take more memory to read than any real ones",
        }
    except _OutOfTimeError:
        message = "the files take longer to check than any real ones: simplify the patterns of adapter_config.json"
        return {"reason": AdapterReason.INVALID_CONFIG, "message": message}
    return facts.to_wire()


def main() -> None:
    """Answer until the input ends."""
    memory, seconds = int(sys.argv[1]), float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _out_of_time)
    # Ctrl-C goes to the whole group; the store ends this process by closing its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        question = json.loads(line)
        size = sum(Path(path).stat().st_size for path in question["files"].values())
        signal.setitimer(signal.ITIMER_PROF, seconds + size / _BYTES_PER_SECOND)
        try:
            said = answer(question)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
