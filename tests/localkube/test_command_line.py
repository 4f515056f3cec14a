"""The command line's own parts."""

import pytest

from localkube_lib.cli import main, milliseconds


@pytest.mark.parametrize(("text", "expected"), [("2s", 2000), ("500ms", 500), ("1.5s", 1500)])
def test_durations(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["2", "2m", "s", ""])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        milliseconds(text)


@pytest.mark.parametrize(
    "command", ["build", "up", "down", "status", "kubeconfig", "logs", "load-image", "forward", "hollow", "clean"]
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "--name" in capsys.readouterr().out


def test_an_impossible_name_is_one_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--name", "../etc"]) == 1
    assert capsys.readouterr().err.startswith("localkube: ")
