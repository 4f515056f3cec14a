"""`motet-operator`: reads the command line and starts the program that it names."""

import asyncio
import logging

from motet_operator.command_line import make_parser


def main(words: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = make_parser().parse_args(words)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # kopf logs every event that it hands over.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # Each program is imported only where it runs: none pays for the libraries of another.
    match options.command:
        case "run":
            from motet_operator.operate import operate as program
        case "metrics-api":
            from motet_operator.metrics_api.main import serve as program
    asyncio.run(program(options))
    return 0
