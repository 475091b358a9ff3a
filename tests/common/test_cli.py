import argparse

import pytest

from common.cli import add_boolean, boolean, command_parser, positive, split_overrides


@pytest.mark.parametrize(("text", "value"), [("True", True), ("false", False), ("1", True), ("no", False)])
def test_boolean_means_what_it_says(text: str, value: bool) -> None:
    assert boolean(text) is value


def test_boolean_flags_accept_nothing_true_or_false() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_boolean(parser, "--save", help="")
    assert parser.parse_args([]).save is False
    assert parser.parse_args(["--save"]).save is True
    assert parser.parse_args(["--save", "False"]).save is False
    with pytest.raises(argparse.ArgumentError, match="neither True nor False"):
        parser.parse_args(["--save", "maybe"])


@pytest.mark.parametrize("text", ["0", "-3", "inf", "nan", "x"])
def test_positive_numbers(text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--fps", type=positive(float))
    assert parser.parse_args(["--fps", "2.5"]).fps == 2.5
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args(["--fps", text])


def test_overrides_are_found_wherever_they_stand() -> None:
    words = ["-e", "x", "data.root=/a=b", "--path", "orbit", "training.steps=3", "plain=word", "-b", "2"]
    overrides, flags = split_overrides(words)
    assert overrides == ["data.root=/a=b", "training.steps=3"]
    assert flags == ["-e", "x", "--path", "orbit", "plain=word", "-b", "2"]


def test_help_ends_with_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_parser("What it does.", "run -a\nrun -b").parse_args(["--help"])
    assert capsys.readouterr().out.endswith("examples:\n  run -a\n  run -b\n")
