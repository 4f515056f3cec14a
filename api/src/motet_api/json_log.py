"""The form of a line in every part's log: one JSON object, the same few fields first. Pure: it writes nothing."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

ABOUT: Final = "about"
"""A record's attribute with fields of the line that no attribute can have, because logging has one of that name: the
`name` of an object is not the `name` of a logger. A mapping."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", ABOUT}


class JsonFormatter(logging.Formatter):
    """One log record as one line of JSON, with whatever the caller put into `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        about = getattr(record, ABOUT, None)
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(about if isinstance(about, Mapping) else {}),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)
