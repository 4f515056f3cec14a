"""Waiting for a part of the cluster, with a deadline."""

import time
from collections.abc import Callable

from localkube_lib.errors import LocalKubeError


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Poll until the condition holds; a file or socket that is not there yet counts as "not yet".

    Raises:
        LocalKubeError: the deadline passed.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise LocalKubeError(f"{what} did not come up within {seconds:.0f} s; see 'hack/localkube logs'")
        time.sleep(0.05)
