"""Serve the pages of runs over HTTP, on this machine only.

Each page is made when it is requested, and so shows the current state of the run. No file path is built from a request:
the requested address is looked up among the addresses of the runs and of the files in the run folders.
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
from distill.view.page import Section, make_page
from distill.view.run import StoredRun, find_runs, read_run
from distill.view.run_page import RELOAD_S, index_page, offered_files, run_page

HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Response:
    """The HTTP response to a request: its body, content type and status code."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


def serve(folders: Sequence[Path], port: int = 0) -> ThreadingHTTPServer:
    """Return an HTTP server for the pages of runs on the loopback address. The caller must start the server.

    Args:
        folders: Run folders, or folders that contain run folders.
        port: Port of the server; 0 selects a free port.

    Raises:
        UserError: a folder contains no run, or the port is taken.
    """
    find_runs(folders)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(self._response())

        def do_HEAD(self) -> None:
            self._send(self._response(), head=True)

        def _response(self) -> Response:
            # Another site can make its own host name resolve to this machine, so accept only the names of this machine.
            host = self.headers.get("Host", "").rpartition(":")[0]
            return respond(folders, self.path) if host in (HOST, "localhost") else _error(HTTPStatus.FORBIDDEN)

        def _send(self, response: Response, *, head: bool = False) -> None:
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(response.body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            with suppress(ConnectionError):  # the browser may have left the page
                self.end_headers()
                self.wfile.write(b"" if head else response.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing about a request, unlike the base class."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} cannot be used ({error}); choose another --port, or leave out --port to use a free one"
        ) from error


def respond(folders: Sequence[Path], address: str) -> Response:
    """Return the response to a request: the page of a run, the overview of all runs, or a file of a run.

    For a run that cannot be read, the response is a page that shows the error and reloads itself.

    Args:
        folders: Run folders, or folders that contain run folders.
        address: The path of the requested URL, such as /NAME/ or /NAME/mesh.glb.
    """
    try:
        return _route(find_runs(folders), unquote(urlsplit(address).path))
    except UserError as error:
        problem = make_page("This run cannot be read", [Section("Error", str(error))], reload_s=RELOAD_S)
        return Response(problem.encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)


def _route(runs: Mapping[str, Path], path: str) -> Response:
    single = len(runs) == 1
    if path == "/":
        if single:
            return _html(run_page(_read(runs, next(iter(runs))), served=True))
        stored = [_read(runs, name) for name in runs]
        return _html(index_page(stored, lambda run: f"/{quote(run.name)}/", served=True))
    for name, folder in runs.items():
        root = "/" if single else f"/{name}/"
        if path == root:
            return _html(run_page(_read(runs, name), served=True, back=("All runs", "/")))
        for file in offered_files(folder):
            if path == root + file.name:
                return Response(file.read_bytes(), guess_type(file.name)[0] or "application/octet-stream")
    return _error(HTTPStatus.NOT_FOUND)


def _read(runs: Mapping[str, Path], name: str) -> StoredRun:
    return read_run(runs[name], name)


def _html(page: str) -> Response:
    return Response(page.encode())


def _error(status: HTTPStatus) -> Response:
    return Response(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8", status)
