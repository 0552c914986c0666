"""Look at runs of `python -m distill`: `python -m distill.view OUT [OUT ...]`."""

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import tyro

from dataset.errors import UserError, run_cli
from dataset.io.files import write_file_atomic
from distill.view.run import Run, find_runs, read_run
from distill.view.run_page import index_page, run_page
from distill.view.server import serve


@dataclass(frozen=True)
class Args:
    """A page with the model to turn, the video, the losses and what was asked; a run under way is shown as it goes.

    Served on this machine only, until Ctrl-C. Several runs, or folders that hold some, are shown side by side.
    """

    folders: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="OUT ...")]
    """Folders that python -m distill wrote, or folders of such folders."""
    out: Path | None = None
    """Write the page as this HTML file, which needs nothing else, and stop. Of several runs: an overview, and a page
    for each beside it."""
    port: int = 0
    """The port to serve at; 0 takes a free one."""
    open: bool = False
    """Open the page in the browser."""


def main(args: Args) -> int:
    """Run the command line."""
    if not args.folders:
        raise UserError("no folder is given; give one that python -m distill wrote (its --out)")
    if args.out:
        for path in write_pages(args.folders, args.out):
            print(path)
        if args.open:
            webbrowser.open(args.out.absolute().as_uri())
        return 0
    with serve(args.folders, args.port) as server:
        address = "http://{}:{}/".format(*server.server_address)
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if args.open:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def write_pages(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the page of the run in `folders`, or the overview of several and their pages; the files written."""
    runs = [read_run(folder, name) for name, folder in find_runs(folders).items()]
    if len(runs) == 1:
        _write(out, run_page(runs[0]))
        return [out]
    pages = {run.name: out.with_name(f"{out.stem}-{number}.html") for number, run in enumerate(runs, 1)}

    def href(run: Run) -> str:
        return quote(pages[run.name].name)

    for run in runs:
        _write(pages[run.name], run_page(run, back=("All runs", quote(out.name))))
    _write(out, index_page(runs, href))
    return [out, *pages.values()]


def _write(path: Path, made: str) -> None:
    write_file_atomic(path, made.encode())


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(Args, prog="python -m distill.view")))
