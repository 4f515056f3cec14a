"""Where the log goes and in which form, and what everything that is logged just now is about."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from motet_api.json_log import ABOUT, JsonFormatter

FORMATS: Final = ("json", "text")
_fields: ContextVar[Mapping[str, str] | None] = ContextVar("fields", default=None)


@contextmanager
def about(fields: Mapping[str, str]) -> Iterator[None]:
    """Inside, and in tasks begun inside, lines carry these fields: `kind`, `namespace` and `name` of an object."""
    token = _fields.set(fields)
    try:
        yield
    finally:
        _fields.reset(token)


class AboutFilter(logging.Filter):
    """Gives the fields to records that do not bring their own. Drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        fields = _fields.get()
        if fields and not hasattr(record, ABOUT):
            setattr(record, ABOUT, fields)
        return True


def configure_logging(level: str, form: str) -> None:
    """Send everything to standard error; `form` is one of `FORMATS`."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    handler.addFilter(AboutFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf logs every event that it hands over.
    logging.getLogger("kopf").setLevel(logging.WARNING)
