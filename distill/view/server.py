"""Run pages over HTTP on this machine alone.

Every request makes its page anew, so that what is shown is what there is. No path is built from a request: addresses
are looked up among those of the runs and of the files in their folders.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from dataset.errors import UserError
from distill.view.page import Section, page
from distill.view.run import Run, find_runs, read_run
from distill.view.run_page import RELOAD_S, files, index_page, run_page

HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


def serve(folders: Sequence[Path], port: int = 0) -> ThreadingHTTPServer:
    """A server of the runs in `folders`, bound to the loopback address; port 0 takes a free one. Not yet running.

    Raises UserError if there is no run or the port is taken.
    """
    find_runs(folders)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(self._answer())

        def do_HEAD(self) -> None:
            self._send(self._answer(), head=True)

        def _answer(self) -> Answer:
            # A page of another site can have its own name resolve to this machine: only this machine's names count.
            host = self.headers.get("Host", "").rpartition(":")[0]
            return answer(folders, self.path) if host in (HOST, "localhost") else _error(HTTPStatus.FORBIDDEN)

        def _send(self, found: Answer, *, head: bool = False) -> None:
            self.send_response(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(found.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            with suppress(ConnectionError):  # whoever asked may have gone on to another page
                self.end_headers()
                self.wfile.write(b"" if head else found.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are no news."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be used ({error}); choose another --port, or none for a free one"
        ) from error


def answer(folders: Sequence[Path], address: str) -> Answer:
    """The page or file at `address`. A run that cannot be read is a page that says so and tries again."""
    try:
        return _found(find_runs(folders), unquote(urlsplit(address).path))
    except UserError as error:
        problem = page("This run cannot be read", [Section("Why", str(error))], reload_s=RELOAD_S)
        return Answer(problem.encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)


def _found(runs: Mapping[str, Path], path: str) -> Answer:
    single = len(runs) == 1
    if path == "/":
        if single:
            return _html(run_page(_read(runs, next(iter(runs))), served=True))
        read = [_read(runs, name) for name in runs]
        return _html(index_page(read, lambda run: f"/{quote(run.name)}/", served=True))
    for name, folder in runs.items():
        root = "/" if single else f"/{name}/"
        if path == root:
            return _html(run_page(_read(runs, name), served=True, back=("All runs", "/")))
        for file in files(folder):
            if path == root + file.name:
                return Answer(file.read_bytes(), guess_type(file.name)[0] or "application/octet-stream")
    return _error(HTTPStatus.NOT_FOUND)


def _read(runs: Mapping[str, Path], name: str) -> Run:
    return read_run(runs[name], name)


def _html(made: str) -> Answer:
    return Answer(made.encode())


def _error(status: HTTPStatus) -> Answer:
    return Answer(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8", status)
