"""What is kept of an answer that passes by."""

import pytest

from motet_api.errors import ErrorCode
from motet_gateway.capture import Capture, is_fault

FAILED = b'data: {"error":{"message":"m","type":"server_error","code":"generation_failed"}}\n\n'
LORAX_FAILED = b'data:{"error":"m","error_type":"generation","code":"generation_failed"}\n\n'


def captured(*pieces: bytes, limit: int = 10) -> Capture:
    capture = Capture(limit)
    for piece in pieces:
        capture.take(piece)
    return capture


def test_an_answer_is_kept_whole_or_not_at_all() -> None:
    assert captured(b"12345", b"67890").whole == b"1234567890"
    assert captured(b"12345", b"678901").whole is None
    assert captured(b"12345678901", b"1").whole is None, "what comes after the limit is not taken for the whole"
    assert captured(limit=0).whole == b""


@pytest.mark.parametrize(
    ("pieces", "failed"),
    [
        ((FAILED,), True),
        ((b"data: {}\n\n", FAILED), True),
        ((b"data: {}\n\n", FAILED, b"data: [DONE]\n\n"), True),
        ((b"data: " + b"x" * 10_000 + b"\n\n", FAILED[:20], FAILED[20:]), True),
        ((b"data: {}\n\n", LORAX_FAILED), True),
        ((b'data: {"text":"code generation_failed"}\n\n',), False),
        ((FAILED.replace(b"generation_failed", b"invalid_request"),), False),
        ((b"",), False),
    ],
)
def test_a_stream_that_ends_in_a_failure(pieces: tuple[bytes, ...], failed: bool) -> None:
    assert captured(*pieces).failed_in_a_stream is failed


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (500, ErrorCode.GENERATION_FAILED, True),
        (500, None, True),
        (400, None, False),
        (503, ErrorCode.NO_READY_POD, False),
        (429, ErrorCode.OVERLOADED, False),
    ],
)
def test_whose_fault_an_error_is(status: int, code: ErrorCode | None, fault: bool) -> None:
    assert is_fault(status, code) is fault
