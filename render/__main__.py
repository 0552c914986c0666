"""Command line of `python -m render`: render 3D objects into shards."""

import tyro

from dataset.errors import run_cli
from render.cli import Command
from render.driver import run

if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(Command, prog="python -m render")))
