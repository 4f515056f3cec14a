"""`motet-operator`: reads the command line and starts the program that it names."""

import asyncio

from motet_operator.command_line import make_parser
from motet_operator.json_logs import configure_logging


def main(words: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = make_parser().parse_args(words)
    configure_logging(options.log_level, options.log_format)
    # Each program is imported only where it runs: none pays for the libraries of another.
    match options.command:
        case "run":
            from motet_operator.operate import operate as program
        case "metrics-api":
            from motet_operator.metrics_api.main import serve as program
        case "store":
            from motet_operator.store.main import serve as program
    asyncio.run(program(options))
    return 0
