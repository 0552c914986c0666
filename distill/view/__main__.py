"""Show the results and the progress of `python -m distill` in a browser: `python -m distill.view OUT [OUT ...]`."""

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import tyro

from dataset.errors import UserError, run_cli
from dataset.io.files import write_file_atomic
from dataset.io.options import HiddenDefault
from distill.view.run import StoredRun, find_runs, read_run
from distill.view.run_page import index_page, run_page
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
            webbrowser.open(args.out.absolute().as_uri())
        return 0
    with serve(args.folders, args.port) as server:
        address = "http://{}:{}/".format(*server.server_address)
        print(f"{address} (stop with Ctrl-C)", flush=True)
        if args.open:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def write_pages(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the pages of all runs in some folders as HTML files.

    Args:
        folders: Run folders, or folders that contain run folders.
        out: The HTML file. For a single run it is the page of this run. For several runs it is the overview, and the
            pages of the runs are files beside it.

    Returns:
        The files written.

    Raises:
        UserError: a folder contains no run, or a file of a run is not valid.
    """
    runs = [read_run(folder, name) for name, folder in find_runs(folders).items()]
    if len(runs) == 1:
        _write(out, run_page(runs[0]))
        return [out]
    pages = {run.name: out.with_name(f"{out.stem}-{number}.html") for number, run in enumerate(runs, 1)}

    def href(run: StoredRun) -> str:
        return quote(pages[run.name].name)

    for run in runs:
        _write(pages[run.name], run_page(run, back=("All runs", quote(out.name))))
    _write(out, index_page(runs, href))
    return [out, *pages.values()]


def _write(path: Path, page: str) -> None:
    write_file_atomic(path, page.encode())


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(ViewArgs, prog="python -m distill.view")))
