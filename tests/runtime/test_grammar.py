"""Answers keep to a grammar, whatever the model's scores: they are random here. One token is one byte."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from motet_api.errors import ErrorCode
from motet_runtime.engine.grammar import GrammarCompiler, GrammarKind, GrammarSpec
from motet_runtime.engine.sampling import Sampler
from motet_runtime.engine.sequence import Constraint, RowFailure, SampledToken, SamplingParams, Sequence
from motet_runtime.errors import RequestError
from tests.models import make_tiny_tokenizer

CPU = torch.device("cpu")
EOS = 257
LOGITS = 300
"""More than the tokenizer's 258 tokens, as models pad their vocabulary."""

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["x", "yy"]}, "maxItems": 3},
        "nothing": {"type": "null"},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, LOGITS)


def schema(value: object) -> GrammarSpec:
    return GrammarSpec(GrammarKind.JSON_SCHEMA, json.dumps(value))


def regex(text: str) -> GrammarSpec:
    return GrammarSpec(GrammarKind.REGEX, text)


def bits(constraint: Constraint) -> list[int]:
    words = constraint.allowed()
    return [32 * at + bit for at, word in enumerate(words) for bit in range(32) if word >> bit & 1]


def answers(compiler: GrammarCompiler, spec: GrammarSpec, tokens: int, count: int = 16) -> Iterator[list[int]]:
    """Answers of a model with random scores, `count` rows in a step, each at most `tokens` long; all of them end."""
    torch.manual_seed(3)
    rows = []
    for number in range(count):
        params = SamplingParams(tokens, sample=number % 2 == 0, seed=number)
        rows.append(Sequence(number, (1, 2), params, constraint=compiler.compile(spec)))
    running, sampler = rows, Sampler(CPU)
    for _ in range(tokens):
        found = sampler.sample(running, 3 * torch.randn(len(running), LOGITS))
        for row in running:
            token = found[row.id]
            assert isinstance(token, SampledToken)
            row.output.append(token.id)
        running = [row for row in running if row.output[-1] != EOS]
        if not running:
            break
    assert not running
    for row in rows:
        yield row.output[:-1]


def test_random_scores_give_json_of_the_schema(compiler: GrammarCompiler, tokenizer: Any) -> None:
    seen = set()
    for output in answers(compiler, schema(SCHEMA), tokens=900):
        value = json.loads(tokenizer.decode(output))
        assert set(value) - {"nothing"} == {"name", "age", "tags"}
        assert isinstance(value["name"], str) and len(value["name"]) <= 8
        assert isinstance(value["age"], int) and 0 <= value["age"] <= 150
        assert set(value["tags"]) <= {"x", "yy"} and len(value["tags"]) <= 3
        assert value.get("nothing", None) is None
        seen.add(json.dumps(value))
    assert len(seen) > 10


def test_blanks_come_to_an_end(compiler: GrammarCompiler, tokenizer: Any) -> None:
    blank = tokenizer(" ", add_special_tokens=False)["input_ids"][0]
    constraint = compiler.compile(schema({"type": "array", "items": {"enum": [1]}, "minItems": 1, "maxItems": 1}))
    output: list[int] = []
    while (allowed := bits(constraint)) != [EOS]:
        output.append(blank if blank in allowed else allowed[0])
        constraint.advance(output[-1])
    assert json.loads(tokenizer.decode(output)) == [1]
    assert len(output) < 130


@pytest.mark.parametrize("text", [r"[a-c]{2,5}-[0-9]{3}", r"(yes|no|maybe)", r"/a/\\?", "(?i)on\nx"])
def test_random_scores_give_text_of_the_regular_expression(
    compiler: GrammarCompiler, tokenizer: Any, text: str
) -> None:
    for output in answers(compiler, regex(text), tokens=12):
        assert re.fullmatch(text, tokenizer.decode(output))


def test_the_answer_may_end_exactly_where_the_expression_matches(compiler: GrammarCompiler, tokenizer: Any) -> None:
    text, chance = r"ab*(cd)?", random.Random(1)
    for _ in range(20):
        constraint, output = compiler.compile(regex(text)), list[int]()
        for _ in range(10):
            allowed = bits(constraint)
            assert (EOS in allowed) == bool(re.fullmatch(text, tokenizer.decode(output)))
            output.append(chance.choice(allowed))
            constraint.advance(output[-1])
            if output[-1] == EOS:
                break


@pytest.mark.parametrize(
    ("text", "ends"),
    [("", False), ("{", False), ('{"a', False), ('{"a": [1, {}]', False), ("{}", True), ('{"a": [1, {}]}', True)],
)
def test_any_object_ends_where_its_braces_do(compiler: GrammarCompiler, tokenizer: Any, text: str, ends: bool) -> None:
    constraint = compiler.compile(GrammarSpec(GrammarKind.JSON_OBJECT))
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        assert token in bits(constraint)
        constraint.advance(token)
    assert (EOS in bits(constraint)) is ends
    assert ends is (bits(constraint) == [EOS])


def test_an_answer_that_goes_on_after_its_end_repeats_it(compiler: GrammarCompiler) -> None:
    constraint = compiler.compile(regex(""))
    for _ in range(3):
        assert bits(constraint) == [EOS]
        constraint.advance(EOS)


def test_every_token_that_ends_an_answer_may(tokenizer: Any) -> None:
    compiler = GrammarCompiler(tokenizer, LOGITS, eos_ids=(EOS, 256))
    assert bits(compiler.compile(regex(""))) == [256, EOS]
    assert 256 not in bits(compiler.compile(regex(".+")))


@pytest.mark.parametrize("logits", [LOGITS, 258, 200], ids=["padded", "equal", "fewer than the tokenizer's"])
def test_no_token_beyond_the_tokenizer_is_allowed(tokenizer: Any, logits: int) -> None:
    constraint = GrammarCompiler(tokenizer, logits).compile(regex(r"(.|\n)*"))
    assert max(bits(constraint)) == EOS
    row = Sequence(1, (1,), SamplingParams(1), constraint=constraint)
    scores = torch.arange(400.0)[None]
    found = Sampler(CPU).sample([row], scores)[1]
    assert isinstance(found, SampledToken)
    assert found.id == EOS


def test_a_token_that_the_grammar_does_not_know_fails_the_row_and_does_not_end_the_answer(
    compiler: GrammarCompiler, tokenizer: Any
) -> None:
    constraint = compiler.compile(regex("a+"))
    constraint.advance(tokenizer("b", add_special_tokens=False)["input_ids"][0])
    assert bits(constraint) == []
    row = Sequence(1, (1,), SamplingParams(1), constraint=constraint)
    failed = Sampler(CPU).sample([row], torch.zeros(1, LOGITS))[1]
    assert isinstance(failed, RowFailure) and "grammar" in failed.message


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (GrammarSpec(GrammarKind.JSON_SCHEMA, "{"), "EOF while parsing"),
        (GrammarSpec(GrammarKind.JSON_SCHEMA, '{}], "max_tokens": 5'), "trailing characters"),
        (schema([1]), "Expecting object schema"),
        (schema({"type": "thing"}), "Invalid type: thing"),
        (schema({"not": {"type": "string"}}), 'Unimplemented keys: ["not"]'),
        (schema({"$ref": "http://localhost/secret"}), "does not fetch"),
        (schema({"type": "integer", "minimum": 5, "maximum": 3}), "Unsatisfiable"),
        (schema({"type": "string", "pattern": "(a"}), "unclosed group"),
        (regex("(a"), "unclosed group"),
        (regex("(?=a)b"), "look-around"),
        (regex(r"(a)\1"), "backreferences"),
        (regex("ab\\"), "incomplete escape"),
        (regex("(" * 5000 + ")*" * 5000), "cannot be followed"),
    ],
)
def test_a_wrong_grammar_is_the_callers_error(compiler: GrammarCompiler, spec: GrammarSpec, says: str) -> None:
    with pytest.raises(RequestError) as refused:
        compiler.compile(spec)
    error = refused.value
    assert (error.code, error.param) == (ErrorCode.INVALID_REQUEST, "response_format")
    assert says in error.message and error.message.startswith("response_format: ")
    assert len(error.message) < 400 and "\n" not in error.message


def test_a_tokenizer_without_an_end_follows_no_grammar(tmp_path: Path) -> None:
    endless = make_tiny_tokenizer(tmp_path)
    endless.eos_token = None
    with pytest.raises(RequestError, match="ends an answer"):
        GrammarCompiler(endless, LOGITS).compile(regex("a"))


def test_a_tokenizer_in_python_follows_no_grammar() -> None:
    class Slow:
        eos_token_id = 0

        def get_vocab(self) -> dict[str, int]:
            return {"</s>": 0}

    with pytest.raises(RequestError, match="fast tokenizers"):
        GrammarCompiler(Slow(), LOGITS).compile(regex("a"))


def test_llguidance_is_loaded_with_the_first_grammar_only() -> None:
    program = (
        "import sys, motet_runtime.engine.grammar; sys.exit('llguidance' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})
