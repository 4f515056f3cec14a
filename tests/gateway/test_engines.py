"""vLLM's routes, its errors, and who answered."""

import dataclasses

import pytest

from motet_api.errors import ErrorCode
from motet_api.modeldeployment import EngineType
from motet_gateway.engines import answered_model, check_path, vllm_error
from motet_gateway.errors import RequestRefusedError
from motet_gateway.resolve import Route
from tests.gateway.factories import model

VLLM = Route(dataclasses.replace(model(), engine=EngineType.VLLM))


@pytest.mark.parametrize("path", ["/generate", "/v1/classify", "/tokenize", "/"])
def test_a_path_that_vllm_does_not_answer(path: str) -> None:
    with pytest.raises(RequestRefusedError, match=r"default/tiny has spec.engine.type VLLM.*use /v1/completions"):
        check_path(VLLM, path)
    check_path(Route(model()), path)


def test_a_path_that_vllm_answers() -> None:
    check_path(VLLM, "/v1/chat/completions")


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"id": "x", "model": "churn@v1"}', "churn@v1"),
        (b'data: {"model": "churn@v1"}\n\ndata: {"mod', "churn@v1"),
        (b': ping\n\ndata: {"model": "churn@v1"}\r\n\r\n', "churn@v1"),
        (b'data: {"model": "chu', None),
        (b'{"model": 7}', None),
        (b"", None),
    ],
)
def test_who_answered(body: bytes, model: str | None) -> None:
    assert answered_model(body) == model


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, b'{"error": {"message": "too long", "code": 400}}', ErrorCode.INVALID_REQUEST, "too long"),
        (400, b'{"object": "error", "message": "too long"}', ErrorCode.INVALID_REQUEST, "too long"),
        (500, b"Internal Server Error", ErrorCode.GENERATION_FAILED, "it gives no reason"),
    ],
)
def test_errors_get_a_code(status: int, body: bytes, code: ErrorCode, message: str) -> None:
    found = vllm_error(status, body)
    assert (found.code, found.message) == (code, f"vLLM answered {status}: {message}")
