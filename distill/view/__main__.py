"""Show the results and the progress of `python -m distill` in a browser: `python -m distill.view OUT [OUT ...]`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dataset.errors import UserError, run_cli
from dataset.io.options import HiddenDefault
from distill.view.browser import open_in_browser
from distill.view.files import write_pages
from distill.view.server import serve


@dataclass(frozen=True)
class ViewArgs:
    """Show a page for each run, with its 3D model, video, losses and settings.

    The pages are served on this machine only, until Ctrl-C. The page of an unfinished run reloads itself. For several
    runs, there is an overview with a link to the page of each run.
    """

    folders: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="OUT ...", help_behavior_hint="")]
    """Output folders of python -m distill, or folders that contain them."""
    out: HiddenDefault[Path | None] = None
    """Write the page to this self-contained HTML file instead of serving it.
    For several runs the file is the overview, and the pages of the runs are written beside it."""
    port: int = 0
    """Port of the server; 0 selects a free one."""
    open: bool = False
    """Open the page in the browser."""


def main(args: ViewArgs) -> int:
    """Serve or write the pages of the runs given on the command line, and return the exit status.

    Raises:
        UserError: no folder is given, a folder contains no run, a file of a run is not valid, or the port is taken.
    """
    if not args.folders:
        raise UserError("no run folder is given; give the output folder (--out) of `python -m distill`")
    if args.out:
        for path in write_pages(args.folders, args.out):
            print(path)
        if args.open:
            open_in_browser(args.out.absolute().as_uri())
        return 0
    with serve(args.folders, args.port) as server:
        address = "http://{}:{}/".format(*server.server_address)
        print(f"{address} (stop with Ctrl-C)", flush=True)
        if args.open:
            open_in_browser(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(ViewArgs, prog="python -m distill.view")))
