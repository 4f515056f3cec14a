"""Expressions over module names: the same answers as Python's `re`, in a time that no expression can stretch."""

import random
import re
import time

import pytest

from motet_api.artifact.errors import ArtifactError
from motet_api.artifact.module_pattern import MAX_PATTERN, module_pattern
from motet_api.reasons import AdapterReason

NAMES = [
    f"model.layers.{layer}.{block}"
    for layer in (0, 1, 17)
    for block in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj", "mlp.experts.3.up_proj")
] + ["q_proj", "x", "a.b"]

WRITTEN_BY_PEOPLE = [
    r".*_proj",
    r"q_proj|v_proj",
    r".*decoder.*(SelfAttention|self_attn).*(q|v)_proj$",
    r"^(?!.*mlp).*\.(?:q|v)_proj$",
    r"model\.layers\.(1[0-9]|[0-9])\..*",
    r"model\.layers\.\d{1,2}\.mlp\.(?:down|up)_proj",
    r"(?:.*?(?:language|text|layers).*?(?:self_attn|attn|mlp|ffn).*?(?:q_proj|down_proj).*?)|(?:\bmodel\.x\b.*)",
    r"(?P<block>.+)\.mlp\.[^.]+",
    r".*layers\.(?=17\.).*",
    r"\w+(\.\w+){3,5}",
    r"([a-z]+\.?)*",
    r".*\Bproj",
    r"\Aq_proj\Z",
    r"x{,2}",
    r"a{1}.b{}?|a.b",
    r"",
    r"q_proj",
    r"layers.1.self_attn.v_proj",
]


@pytest.mark.parametrize("text", WRITTEN_BY_PEOPLE)
def test_what_people_write_matches_as_peft_matches_it(text: str) -> None:
    pattern = module_pattern("target_modules", text)
    for name in NAMES:
        assert pattern.matches(name) == bool(re.fullmatch(text, name)), name
        assert pattern.matches_end(name) == bool(re.match(rf"(.*\.)?({text})$", name)), name


def random_pattern(random_: random.Random, depth: int = 3) -> str:
    atoms = ["a", "b", ".", r"\.", "[ab]", "[^a]", r"\w", "^", "$", r"\b"]
    if depth == 0:
        return random_.choice(atoms)
    kind = random_.randrange(6)
    if kind == 0:
        return random_.choice(atoms)
    inner = random_pattern(random_, depth - 1)
    if kind == 1:
        return f"(?:{inner}){random_.choice(['*', '+', '?', '{2}', '{1,2}', '*?', '{1,}'])}"
    if kind == 2:
        return f"({inner}|{random_pattern(random_, depth - 1)})"
    if kind == 3:
        return f"({random_.choice(['?=', '?!', '?:'])}{inner})"
    return inner + random_pattern(random_, depth - 1)


def test_random_expressions_match_as_re_does() -> None:
    random_ = random.Random(7)
    subjects = ["", "a", "b", "ab", "a.b", "aab.b", "b.a.ab", "abab"]
    for _ in range(1500):
        text = random_pattern(random_)
        pattern = module_pattern("target_modules", text)
        for subject in subjects:
            assert pattern.matches(subject) == bool(re.fullmatch(text, subject)), (text, subject)


@pytest.mark.parametrize(
    "text", [r"(a+)+$", r"(a|a)*b", r"(a|aa)+$", r"(.*.*.*.*.*.*.*)x", r"((a*)*)*b", r"(a?){60}a{60}"]
)
def test_what_takes_others_for_ever_is_quick(text: str) -> None:
    started = time.perf_counter()
    assert not module_pattern("target_modules", text).matches("a" * 200 + "!")
    assert time.perf_counter() - started < 1.0


REFUSED = {
    "(": "not closed",
    ")": "unbalanced",
    "[a": "not closed",
    "[z-a]": "bad character range",
    "[[a]": "holds [",
    "*a": "nothing to repeat",
    "a**": "double repetition",
    "a*+": "possessive",
    "a{3,2}": "fewer times",
    r"(a)\1": r"\1 is not served",
    "\\": "is not served",
    "(?<=a)b": "kind that is not served",
    "(?i)a": "kind that is not served",
    "(?>a)": "kind that is not served",
    "(" * 30 + ")" * 30: "nested more than",
    "a" * (MAX_PATTERN + 1): "more than",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items())
def test_what_is_not_served_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ArtifactError, match="rank_pattern") as refused:
        module_pattern("rank_pattern", text)
    assert refused.value.reason is AdapterReason.INVALID_CONFIG
    assert said in refused.value.message


def test_the_cost_of_nested_repetition_is_told_before_it_is_paid() -> None:
    assert module_pattern("target_modules", r".*\.q_proj").cost(60) < 1_000
    assert module_pattern("target_modules", "(" * 6 + "a" + "*)" * 6).cost(60) > 10**9
