"""The command line of `python -m distill`."""

from pathlib import Path

from distill.__main__ import parse_args


def test_renamed_flags_keep_working(capsys):
    args = parse_args(["--image", "a.png", "--seeds", "4", "--reference-weight=2.5"])
    assert (args.num_seeds, args.reference_loss_weight) == (4, 2.5)
    noticed = capsys.readouterr().err
    assert "--seeds is now --num-seeds" in noticed
    assert "--reference-weight is now --reference-loss-weight" in noticed
    assert parse_args(["--image", "a.png", "--num-seeds", "4", "--reference-loss-weight", "2.5"]) == args
    assert args.image == (Path("a.png"),)
    assert capsys.readouterr().err == ""
