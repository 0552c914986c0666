import pytest

from dataset.io.old_flags import rename_old_flags

RENAMED = {"--base": "--init-from", "--picture-every": "--sample-every", "--cut": "--background=cut"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--base", "x"], ["--init-from", "x"]),
        (["--base=x"], ["--init-from=x"]),
        (["--base=x=y"], ["--init-from=x=y"]),
        (["--picture_every", "5"], ["--sample-every", "5"]),
        (["stage1", "--baseline", "base", "--x=--base"], ["stage1", "--baseline", "base", "--x=--base"]),
        (["--", "--base", "x"], ["--", "--base", "x"]),
        (["--cut", "x"], ["--background=cut", "x"]),
        ([], []),
    ],
)
def test_old_flags_become_new_ones_and_everything_else_stays(given: list[str], expected: list[str]) -> None:
    assert rename_old_flags(given, RENAMED) == expected


def test_each_old_flag_is_reported_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    rename_old_flags(["--base=a", "--base=b", "--picture-every", "2", "--steps", "3"], RENAMED)
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert "--base is now --init-from" in first
    assert "--picture-every is now --sample-every" in second


def test_new_flags_are_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    rename_old_flags(["--init-from", "a"], RENAMED)
    assert capsys.readouterr().err == ""
