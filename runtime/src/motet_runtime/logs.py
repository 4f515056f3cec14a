"""Where the log goes, and in which form."""

import logging
import sys

from motet_api.json_log import JsonFormatter


def configure_logging(level: str) -> None:
    """Send everything to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
