"""Command-line options that several benchmarks have."""

from argparse import ArgumentParser

import torch

from train.loop.flops import MATMUL_SIDE


def add_device(parser: ArgumentParser) -> None:
    """Add the option --device to a parser. The default is cuda if there is a GPU, else cpu."""
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device, cpu or cuda (default: cuda if there is a GPU)",
    )


def add_matmul(parser: ArgumentParser) -> None:
    """Add the option --matmul to a parser: the size of the product that measures the matmul peak."""
    parser.add_argument(
        "--matmul",
        type=int,
        default=MATMUL_SIDE,
        help="number of rows of the square matrices whose product measures the matmul peak",
    )
