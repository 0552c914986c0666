"""The command line `python -m render`: render 3D objects into shards."""

import tyro

from dataset.errors import run_cli
from render.cli import RenderCommand
from render.driver import run

if __name__ == "__main__":
    run_cli(lambda: run(tyro.cli(RenderCommand, prog="python -m render")))
