"""Requests to the running app: which files, hosts and origins it refuses, and how it ends."""

import http.client
import io
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.app_server import NEEDS_GRADIO, RunningApp, running_app

pytestmark = [pytest.mark.integration, NEEDS_GRADIO]
SECRET = b"a secret outside of the cache"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    out = tmp_path_factory.mktemp("app") / "out"
    (out / "run").mkdir(parents=True)
    (out / "run" / "input.png").write_bytes(SECRET)
    (out / "run" / "link.glb").symlink_to(out / "run" / "input.png")
    (out.parent / "secret.txt").write_bytes(SECRET)
    with running_app(out) as app:
        yield app


def request(
    app: RunningApp, path: str, body: bytes | None = None, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer; the path is sent as it is."""
    place = urllib.parse.urlsplit(app.address)
    connection = http.client.HTTPConnection(place.netloc, timeout=60)
    connection.putrequest("POST" if body is not None else method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": place.netloc, **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data, dict(answer.getheaders())


def upload(app: RunningApp, name: str, content: bytes, **headers: str) -> tuple[int, bytes]:
    """Upload a file as the page does."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    form = {"Content_Type": "multipart/form-data; boundary=x", **headers}
    return request(app, "/gradio_api/upload", head + content + b"\r\n--x--\r\n", **form)[:2]


def call(app: RunningApp, name: str, values: list[Any]) -> str:
    """Join the queue with a call of the event that has this name, and return the events of the session as text."""
    config = json.loads(request(app, "/config")[1])
    number = next(each["id"] for each in config["dependencies"] if each["api_name"] == name)
    body = json.dumps({"data": values, "fn_index": number, "session_hash": "test", "event_data": None}).encode()
    status, data, _ = request(app, "/gradio_api/queue/join", body, Content_Type="application/json")
    if status != 200:
        return data.decode()
    return request(app, "/gradio_api/queue/data?session_hash=test")[1].decode()


def test_the_page_is_served_and_names_no_other_site(app: RunningApp) -> None:
    status, data, _ = request(app, "/")
    assert status == 200
    assert b"fonts.googleapis" not in data
    assert b"cdnjs" not in data
    config = json.loads(request(app, "/config")[1])
    assert config["analytics_enabled"] is False


def test_files_outside_of_the_cache_are_refused(app: RunningApp) -> None:
    status, data = upload(app, "a.png", b"content")
    assert status == 200
    uploaded = json.loads(data)[0]
    assert request(app, f"/gradio_api/file={uploaded}")[:2] == (200, b"content")
    cache = Path(uploaded).parent
    up = "/.." * len(cache.parts)
    secret = app.out.parent / "secret.txt"
    (cache / "link.txt").symlink_to(secret)
    (cache / "folder").symlink_to(app.out.parent, target_is_directory=True)
    for path in (
        *(str(secret), f"{cache}{up}{secret}", f"{cache}/link.txt", f"{cache}/folder/secret.txt"),
        *(f"{app.out}/run/input.png", f"{app.out}/run/link.glb", "/etc/passwd", "etc/passwd", "README.md"),
        *("pyproject.toml", "examples/cat.png", f"{cache}/%2e%2e/%2e%2e{secret}", f"{cache}/..%2f..%2f{secret}"),
        *(f"{urllib.parse.quote(str(secret), safe='')}", f"{cache}%00.png", "file:///etc/passwd", "//etc/passwd"),
        *("http://127.0.0.1:1/a", "https://example.org/a.png"),
    ):
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/"):
            status, data, _ = request(app, route + path)
            assert status in (403, 404), f"{route}{path}: {status}"
            assert SECRET not in data
            assert b"root:" not in data


def test_other_paths_lead_nowhere(app: RunningApp) -> None:
    secret = app.out.parent / "secret.txt"
    for route in ("/static/", "/assets/", "/svelte/", "/gradio_api/stream/", "/custom_component/", "/"):
        for path in (f"../../../../../..{secret}", f"..%2f..%2f..%2f..%2f..{secret}", f"/{secret}"):
            status, data, _ = request(app, route + path)
            assert SECRET not in data, f"{route}{path}: {status}"


def test_an_input_may_name_only_an_uploaded_file(app: RunningApp) -> None:
    for path in (str(app.out.parent / "secret.txt"), "/etc/passwd", "https://example.org/a.png"):
        image = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
        answer = call(app, "show", [image, "auto", 0, 0, 0, 0, 0])
        assert "process_completed" in answer
        assert '"success":false' in answer.replace(" ", ""), answer
        assert "secret" not in answer.replace("secret.txt", "")


def test_uploads_are_read_by_the_bounded_reader(app: RunningApp) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "PNG")
    large = io.BytesIO()
    Image.new("1", (30_000, 20_000)).save(large, "PNG")
    for name, content, message in (
        ("a.png", buffer.getvalue(), "is kept"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        ("b.png", b"\x89PNG\r\n\x1a\nbroken", "cannot be read as an image"),
        ("large.png", large.getvalue(), "has more than 500,000,000 pixels"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(40), "pillow-heif"),
    ):
        path = json.loads(upload(app, name, content)[1])[0]
        image = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": name}
        assert message in call(app, "show", [image, "auto", 0, 0, 0, 0, 0]), name


def test_the_name_of_an_upload_cannot_lead_out_of_the_cache(app: RunningApp) -> None:
    for name in ("../../escape.png", "/etc/escape.png", "..\\escape.png"):
        status, data = upload(app, name, b"content")
        assert status in (200, 400)
        if status == 200:
            path = Path(json.loads(data)[0])
            assert ".." not in path.parts
            assert path.parents[1].name.startswith("isotropic3d-")


def test_foreign_hosts_and_pages_are_refused(app: RunningApp) -> None:
    assert request(app, "/", Host="evil.example")[0] == 403
    assert request(app, "/", Origin="http://evil.example")[0] == 403
    assert upload(app, "a.png", b"content", Origin="http://evil.example")[0] == 403
    assert request(app, "/", Origin=app.address.rstrip("/"))[0] == 200


def test_the_app_listens_on_this_machine_only(app: RunningApp) -> None:
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    port = f"{urllib.parse.urlsplit(app.address).port:04X}"
    addresses = {line.split()[1].partition(":")[0] for line in listening if line.split()[1].endswith(f":{port}")}
    assert addresses == {"0100007F"}


def test_ctrl_c_ends_the_app_and_removes_its_copies(tmp_path: Path) -> None:
    with running_app(tmp_path / "out") as app:
        uploaded = Path(json.loads(upload(app, "a.png", b"content")[1])[0])
        assert uploaded.is_file()
    assert app.process.returncode == 0, "".join(app.lines)
    assert not uploaded.exists()
    assert "Traceback" not in "".join(app.lines)
