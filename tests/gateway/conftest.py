"""Gateways of a module's tests: they stop while the next test runs."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest_asyncio

from tests.gateway.front_door import Opening, front_door


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def opening() -> AsyncIterator[Opening]:
    """Opens gateways; at the end all of them have stopped without an error."""
    endings: list[asyncio.Task[None]] = []
    yield partial(front_door, endings=endings)
    await asyncio.gather(*endings)
