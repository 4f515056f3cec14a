"""A wrong option ends the process with one line that names it; what is right makes the settings."""

import re
from pathlib import Path

import pytest

from motet_api.identity import Digest
from motet_runtime.options import fetch_settings_of, parse_options, settings_of
from motet_runtime.settings import FetchSettings
from tests.models import make_tiny_llama
from tests.runtime.process import runtime_process

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"

WRONG = [
    *(
        "--port 0",
        "--port 65536",
        "--admin-port 8000",
        "--max-model-len 1",
        "--max-batch-size 0",
        "--max-batch-size -1",
    ),
    *("--max-step-tokens 0", "--max-stretch 0.9", "--max-stretch nan", "--kv-memory 0", "--kv-memory 1.5"),
    *("--block-size 0", "--max-rank 0", "--adapter-slots 0", "--adapter-memory 0", "--adapter-host-memory -1"),
    *("--adapter-disk -1", "--threads 0", "--drain-grace-seconds -1", "--drain-timeout-seconds inf"),
    *("--log-level loud", "--dtype int3", "--model-name \u043c\u043e\u0434\u0435\u043b\u044c"),
]


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_option_is_one_line_that_names_it(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    option, value = words.split(" ")
    with pytest.raises(SystemExit) as ended:
        parse_options(["serve", "--model", "m", option, value])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line
    assert value in line


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--store", "store:8002"),
        ("--store", "http://store/path"),
        ("--artifact", "sha256:1"),
        ("--patience-seconds", "-1"),
    ],
)
def test_a_wrong_option_of_fetch_is_one_line_too(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    right = {"--store": "http://store:8002", "--artifact": DIGEST, "--to": "/models/tiny"}
    with pytest.raises(SystemExit):
        parse_options(["fetch", *(word for pair in {**right, option: value}.items() for word in pair)])
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line
    assert value in line


def test_what_is_to_be_fetched() -> None:
    words = ["fetch", "--store", "http://store:8002/", "--artifact", DIGEST, "--to", "/models/tiny"]
    assert fetch_settings_of(parse_options(words)) == FetchSettings(
        "http://store:8002", Digest(DIGEST), Path("/models/tiny"), 600.0
    )


def test_what_is_not_given_takes_its_default_and_sizes_are_in_mib() -> None:
    settings = settings_of(
        parse_options(["serve", "--model", "/models/tiny", "--kv-memory", "3", "--adapter-disk", "0"])
    )
    assert (settings.model, settings.model_name) == ("file:///models/tiny", "tiny")
    assert (settings.engine.kv_bytes, settings.engine.adapter_bytes) == (3 << 20, None)
    assert (settings.adapter_disk_bytes, settings.adapter_host_bytes) == (0, 2048 << 20)
    many = settings_of(parse_options(["serve", "--model", "pvc://claim/a/b/", "--max-batch-size", "1000"]))
    assert (many.model, many.model_name) == ("pvc://claim/a/b/", "b")
    assert many.engine.max_step_tokens == 1000, "each running answer needs its token"


@pytest.mark.parametrize(("command", "least"), [("serve", 20), ("fetch", 4)])
def test_every_option_is_documented(command: str, least: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options([command, "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert len(options) > least
    assert [option for option in sorted(options) if f"`{option}`" not in PAGE.read_text()] == []


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--adapter-memory", "1", "--max-rank", "1024"), "--adapter-memory of 1 MiB holds no adapter of rank 1024"),
        (("--kv-memory", "1", "--block-size", "1500"), "--kv-memory of 1 MiB holds no two blocks"),
    ],
)
def test_memory_that_is_too_small_for_the_model_ends_the_process_with_its_reason(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    base = make_tiny_llama(tmp_path / "tiny")
    with runtime_process(base, tmp_path, *options) as runtime:
        assert runtime.process.wait(timeout=60) == 1
        log = runtime.log.read_text()
        assert said in log
        assert "raise it" in log
        assert "Traceback" not in log
