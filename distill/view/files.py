"""Write the pages of runs as self-contained HTML files."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from dataset.io.files import write_file_atomic
from distill.view.run import StoredRun, find_runs, read_run
from distill.view.run_page import index_page, run_page


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
