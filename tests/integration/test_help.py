"""Tests of the --help of all commands."""

from collections.abc import Callable
from typing import Any

import pytest
import tyro

from dataset.__main__ import (
    CopyCommand,
    CurateCommand,
    ExportCommand,
    ImportCommand,
    InfoCommand,
    PreviewCommand,
    ReportCommand,
    VerifyCommand,
)
from distill.app.__main__ import AppArgs
from distill.config import DistillArgs
from distill.evaluate.config import AssetEvaluationArgs
from distill.view.__main__ import ViewArgs
from render.cli import RenderCommand
from render.true_meshes import TrueMeshes
from train.__main__ import parse
from train.convert.convert import ConvertArgs
from train.encode.__main__ import EncodeArgs
from train.evaluate.evaluate import NovelViewArgs
from train.export import ExportArgs, PushArgs
from train.known import KnownArgs
from train.sample import SampleArgs
from train.tiny_model import TinyModelArgs

OPTIONS = (
    *(VerifyCommand, InfoCommand, PreviewCommand, ReportCommand, CurateCommand, CopyCommand, ExportCommand),
    ImportCommand,
    *(RenderCommand, TrueMeshes),
    *(ConvertArgs, EncodeArgs, NovelViewArgs, ExportArgs, KnownArgs, PushArgs, SampleArgs, TinyModelArgs),
    *(DistillArgs, AssetEvaluationArgs, ViewArgs, AppArgs),
)


def check_help(show: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        show()
    assert exited.value.code == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "-h, --help" in words
    assert "(default: None)" not in words
    assert "(default: )" not in words


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.__name__)
def test_help_does_not_show_an_empty_default(options: type, capsys: pytest.CaptureFixture[str]) -> None:
    check_help(lambda: tyro.cli(options, args=["--help"]), capsys)


@pytest.mark.parametrize("command", ["stage1", "stage2", "autoencoder", "image-encoder"])
def test_help_of_train_does_not_show_an_empty_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_help(lambda: parse([command, "--help"]), capsys)
