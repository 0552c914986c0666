"""Which requests the guard of the app lets pass, and which files it publishes."""

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from dataset.errors import UserError
from distill.app.guard import LOCAL_HOSTS, Guard, is_host_allowed, is_path_allowed, is_same_origin, publish


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder with one file and links that lead out of it, beside a secret."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "shown.png").write_bytes(b"shown")
    (tmp_path / "secret.txt").write_text("secret")
    (cache / "link.txt").symlink_to(tmp_path / "secret.txt")
    (cache / "folder").symlink_to(tmp_path, target_is_directory=True)
    (cache / "inside.png").symlink_to(cache / "shown.png")
    return cache


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/file="])
def test_only_files_of_the_cache_are_served(cache: Path, route: str) -> None:
    assert is_path_allowed(f"{route}{cache}/shown.png", cache)
    assert is_path_allowed(f"{route}{cache}/inside.png", cache)
    for path in (
        f"{cache}/../secret.txt",
        f"{cache}/link.txt",
        f"{cache}/folder/secret.txt",
        f"{cache}/missing.png",
        f"{cache}",
        f"{cache.parent}/secret.txt",
        f"{cache}-other/shown.png",
        f"{cache}/%2e%2e/secret.txt",
        "/etc/passwd",
        "etc/passwd",
        "../secret.txt",
        "shown.png",
        "file:///etc/passwd",
        "http://example.org/a.png",
        "https://example.org/a.png",
        f"{cache}/shown.png\0.txt",
    ):
        assert not is_path_allowed(f"{route}{path}", cache), path


def test_other_routes(cache: Path) -> None:
    for path in ("/", "/config", "/assets/index.js", "/gradio_api/upload", "/gradio_api/queue/join"):
        assert is_path_allowed(path, cache)
    for path in (
        "/gradio_api/proxy=https://example.org/a",
        "/monitoring",
        "/gradio_api/monitoring",
        f"/gradio_api/file/{cache}/link.txt",
        f"/static/file={cache}/shown.png",
    ):
        assert not is_path_allowed(path, cache), path


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *[("127.0.0.1:7860", True), ("localhost:7860", True), ("[::1]:7860", True), ("LOCALHOST", True)],
        *[("evil.example:7860", False), ("", False), ("127.0.0.1.evil.example", False), ("localhost.evil:80", False)],
    ],
)
def test_hosts(host: str, allowed: bool) -> None:
    assert is_host_allowed(host, LOCAL_HOSTS) == allowed
    assert is_host_allowed(host, ())


@pytest.mark.parametrize(
    ("origin", "same"),
    [
        *[(None, True), ("http://127.0.0.1:7860", True), ("http://127.0.0.1:1", False)],
        *[("https://evil.example", False), ("null", False)],
    ],
)
def test_origins(origin: str | None, same: bool) -> None:
    assert is_same_origin("127.0.0.1:7860", origin) == same


def answer(cache: Path, path: str, **headers: str) -> int:
    """The status of the answer to a request; 200 if it reaches the application."""
    sent: list[MutableMapping[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "headers": named}
    asyncio.run(Guard(application, hosts=LOCAL_HOSTS, cache=cache)(scope, receive, send))
    return int(sent[0]["status"])


def test_the_guard_answers_refused_requests(cache: Path) -> None:
    assert answer(cache, "/", host="localhost:1") == 200
    assert answer(cache, "/", host="evil.example") == 403
    assert answer(cache, "/") == 403
    assert answer(cache, "/gradio_api/queue/join", host="localhost:1", origin="http://evil.example") == 403
    assert answer(cache, "/gradio_api/file=/etc/passwd", host="localhost:1") == 403


def test_files_are_published_as_copies(tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "mesh.glb").write_bytes(b"first")
    first = publish(run / "mesh.glb", cache)
    assert (first.read_bytes(), first.name) == (b"first", "mesh.glb")
    assert is_path_allowed(f"/gradio_api/file={first}", cache)
    assert publish(run / "mesh.glb", cache) == first
    (run / "mesh.glb").write_bytes(b"second, larger")
    assert publish(run / "mesh.glb", cache).read_bytes() == b"second, larger"
    (run / "views.png").symlink_to(tmp_path / "secret.txt")
    for name in ("views.png", "missing.png"):
        with pytest.raises(UserError, match="cannot be shown"):
            publish(run / name, cache)
