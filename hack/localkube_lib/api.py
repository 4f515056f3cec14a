"""Reads of the cluster's API while it comes up: many, and each far cheaper than a kubectl process."""

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from localkube_lib.certificates import Certificates


@dataclass(frozen=True, slots=True)
class Api:
    """The API server behind a port of the host's loopback, asked as the administrator."""

    port: int
    certificates: Certificates

    def get(self, path: str, timeout: float = 5.0) -> bytes | None:
        """The body of a successful answer, None for any other and for none."""
        context = ssl.create_default_context(cafile=self.certificates.crt("ca"))
        context.load_cert_chain(self.certificates.crt("admin"), self.certificates.key("admin"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return body if answer.status == http.client.OK else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def read(self, path: str) -> dict[str, Any] | None:
        """The object at a path, None when there is none or nobody answers."""
        body = self.get(path)
        document: dict[str, Any] | None = json.loads(body) if body is not None else None
        return document
