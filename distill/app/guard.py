"""Protect the web server of the app: which hosts, origins and files a request may name.

The server sends no file of the output folder. Files that a page shows are first copied into a cache folder
(`publish`), and requests for files outside of this folder are refused, also through symbolic links.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from dataset.errors import UserError
from dataset.io.files import write_file_atomic

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")
_FILE_ROUTE: Final = "file="
_CLOSED_ROUTES: Final = ("file/", "proxy=", "monitoring", "workflow", "deep_link", "vibe")  # not used by the page


class Guard:
    """An ASGI middleware that answers requests which are not allowed with 403."""

    def __init__(self, app: AsgiApp, *, hosts: tuple[str, ...], cache: Path) -> None:
        """Wrap an application.

        Args:
            app: The application.
            hosts: Host names under which the server may be addressed, without port; empty: any.
            cache: The only folder whose files are served.
        """
        self._app, self._hosts, self._cache = app, hosts, cache

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] in ("http", "websocket") and not self._is_allowed(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": b"403 Forbidden\n"})
            return
        await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        return (
            is_host_allowed(headers.get("host", ""), self._hosts)
            and is_same_origin(headers.get("host", ""), headers.get("origin"))
            and is_path_allowed(scope["path"], self._cache)
        )


def is_host_allowed(host: str, hosts: Iterable[str]) -> bool:
    """Return whether the Host header names this server. A foreign name may resolve to this machine (DNS rebinding).

    Args:
        host: The Host header.
        hosts: Allowed names without port; empty: any.
    """
    allowed = tuple(hosts)
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return not allowed or name.lower() in allowed


def is_same_origin(host: str, origin: str | None) -> bool:
    """Return whether a request comes from a page of this server, or from no page.

    Args:
        host: The Host header.
        origin: The Origin header; None if there is none.
    """
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def is_path_allowed(path: str, cache: Path) -> bool:
    """Return whether the path of a request may be served: any path, except files that are not in the cache folder.

    Args:
        path: The path of the requested URL, decoded once.
        cache: The cache folder.
    """
    parts = path.removeprefix("/").removeprefix("gradio_api/")
    if parts.startswith(_CLOSED_ROUTES):
        return False
    if _FILE_ROUTE not in path:
        return True
    if not parts.startswith(_FILE_ROUTE):
        return False
    named = parts.removeprefix(_FILE_ROUTE)
    if unquote(named) != named:  # encoded twice
        return False
    return _is_file_in(Path(named), cache)


def publish(path: Path, cache: Path) -> Path:
    """Copy a file into the cache folder, unless it is there, and return the path of the copy.

    Args:
        path: A file of a run. A symbolic link is refused.
        cache: The cache folder.

    Raises:
        UserError: the file is gone, is a symbolic link, or cannot be copied.
    """
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path.name} of {path.parent.name} is not a file, so it cannot be shown")
    status = path.stat()
    key = hashlib.sha256(f"{path}{status.st_size}{status.st_mtime_ns}".encode()).hexdigest()[:16]
    copy = cache / "runs" / key / path.name
    if not copy.is_file():
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_file_atomic(copy, path.read_bytes())
        except OSError as error:
            raise UserError(
                f"{path.name} cannot be copied to the folder for temporary files ({error.strerror or error}); free "
                "some disk space there"
            ) from error
    return copy


def _is_file_in(path: Path, folder: Path) -> bool:
    """Return whether a path without links or `..` leads to a regular file in a folder."""
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return False
    return path.is_absolute() and resolved.is_file() and resolved.is_relative_to(folder.resolve())
