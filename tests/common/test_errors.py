import pytest

from common.errors import UserError, command


def _fail(error: BaseException):
    @command
    def main() -> None:
        raise error

    return main


def test_user_errors_are_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        _fail(UserError("photo.jpg is missing: put it back"))()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: photo.jpg is missing: put it back\n"


def test_interrupts_exit_with_130() -> None:
    with pytest.raises(SystemExit) as stopped:
        _fail(KeyboardInterrupt())()
    assert stopped.value.code == 130


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        _fail(ZeroDivisionError())()
