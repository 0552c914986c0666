"""Serve the app, in which images become 3D models in a browser: `python -m distill.app` or `make app`."""

import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from dataset.errors import UserError, run_cli
from dataset.io.option_checks import check_number
from dataset.io.options import HiddenDefault
from dataset.io.scratch import ScratchFolder, remove_stale_folders
from distill.app.service import AppService
from distill.view.browser import open_in_browser
from train.model.multiview import BUNDLED_MODEL


@dataclass(frozen=True)
class AppArgs:
    """Serve a web page on which you drop an image, watch it become a 3D model, turn the model and download it.

    The page is served on this machine only, unless --host is given, and it loads nothing from the internet. Runs are
    those of python -m distill: they have the same folders, and a run begun in one can be resumed in the other. Ctrl-C
    stops the app; runs then write a checkpoint and can be resumed.
    """

    out: Path = Path("out")
    """Folder of the runs. The runs of python -m distill in it are listed too."""
    model: Path = BUNDLED_MODEL
    """A model folder written by training or train.convert, a checkpoint file, or a Hub name."""
    device: str = "auto"
    """Device of the runs: auto (all GPUs, one run on each, or the CPU), cpu, cuda, cuda:1, ..."""
    port: int = 7860
    """Port of the server. If it is taken, one of the next 100; 0 selects a free one."""
    host: HiddenDefault[str | None] = None
    """Address to serve on, such as 0.0.0.0 to let other machines of the network use the app: anyone who reaches it can
    start runs and see all runs. Default: 127.0.0.1, this machine only."""
    open: bool = False
    """Open the page in the browser."""
    steps_scale: float = 1.0
    """Factor of the number of steps of all presets, for quick tests."""


def main(args: AppArgs) -> int:
    """Serve the app until Ctrl-C, and return the exit status.

    Raises:
        UserError: gradio is not installed, an option is invalid, or the model or the port cannot be used.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the app requires the package gradio; run `make app`, which installs it")
    check_number("--steps-scale", args.steps_scale, 1e-4, 100)
    check_number("--port", args.port, 0, 65535)
    torch.set_num_threads(1)  # the runs need the other cores
    service = AppService(args.model, args.out, args.device, steps_scale=args.steps_scale)
    remove_stale_folders()
    scratch = ScratchFolder()
    try:
        from distill.app.server import serve

        with serve(service, scratch.path, host=args.host, port=args.port) as address:
            print(f"{address} (stop with Ctrl-C)", flush=True)
            if args.open:
                open_in_browser(address)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("stopping: every run writes a checkpoint", flush=True)
    finally:
        service.close()
        scratch.close()
    return 0


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(AppArgs, prog="python -m distill.app")))
