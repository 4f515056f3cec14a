"""Where the log goes, and in which form."""

import logging
import sys
from typing import Final

from motet_api.json_log import JsonFormatter

FORMATS: Final = ("json", "text")


def configure_logging(level: str, form: str) -> None:
    """Send everything to standard error; `form` is one of `FORMATS`."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
