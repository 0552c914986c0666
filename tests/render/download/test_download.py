"""Downloads against a server on loopback: what is retried, what is refused, and that no half file is ever seen."""

import hashlib
import time
from collections import deque
from email.utils import formatdate

import pytest
import requests

from render.download.http import (
    DownloadError,
    DownloadPolicy,
    RetryableError,
    _authorize,
    _network_failure,
    _retry_after_s,
    _Session,
)
from render.download.objaverse_cache import download_listing, fetch
from tests.support.loopback import GLB, NAME, SHA256, UID, Answer, asset, files, glb, policy


def failed(server, cache, **changes):
    """The DownloadError of a fetch that must fail, and leave nothing behind."""
    with pytest.raises(DownloadError) as caught:
        fetch(asset(), cache, policy(server, **changes))
    assert files(cache) == []
    assert caught.value.failure.stage == "download"
    assert NAME in str(caught.value)
    return caught.value


def test_a_good_file_is_kept_and_not_asked_for_again(server, tmp_path):
    server.give(NAME, Answer())
    first = fetch(asset(), tmp_path, policy(server))
    assert (bytes(first.data), first.size, first.sha256, first.attempts) == (GLB, 1000, SHA256, 1)
    assert first.path == tmp_path / NAME
    assert files(tmp_path) == [NAME]
    again = fetch(asset(), tmp_path, policy(server))
    assert (bytes(again.data), again.sha256, again.attempts, again.path) == (GLB, SHA256, 0, first.path)
    assert len(server.asked(NAME)) == 1


def test_without_keep_nothing_stays_and_what_was_there_does(server, tmp_path):
    server.give(NAME, Answer())
    got = fetch(asset(), tmp_path, policy(server, keep=False))
    assert (bytes(got.data), got.path) == (GLB, None)
    assert files(tmp_path) == []
    fetch(asset(), tmp_path, policy(server))
    assert fetch(asset(), tmp_path, policy(server, keep=False)).attempts == 0
    assert files(tmp_path) == [NAME]


def test_a_damaged_cached_file_is_replaced(server, tmp_path):
    server.give(NAME, Answer())
    (tmp_path / NAME).parent.mkdir(parents=True)
    (tmp_path / NAME).write_bytes(GLB[:500])
    assert fetch(asset(), tmp_path, policy(server)).attempts == 1
    assert (tmp_path / NAME).read_bytes() == GLB


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_tried_again(server, tmp_path, status):
    server.give(NAME, Answer(b"", status))
    error = failed(server, tmp_path)
    assert (error.failure.error_class, error.attempts, len(server.asked(NAME))) == (f"Http{status}", 1, 1)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, tmp_path, status):
    server.give(NAME, Answer(b"busy", status), Answer(b"busy", status), Answer())
    assert fetch(asset(), tmp_path, policy(server)).attempts == 3
    server.give(NAME, Answer(b"busy", status))
    (tmp_path / NAME).unlink()
    error = failed(server, tmp_path)
    assert (error.failure.error_class, error.attempts) == (f"Http{status}", 3)


def test_retry_after_is_honoured(server, tmp_path):
    server.give(NAME, Answer(b"", 429, {"Retry-After": "1"}), Answer())
    started = time.monotonic()
    fetch(asset(), tmp_path, policy(server))
    assert time.monotonic() - started >= 1.0
    assert _retry_after_s("17") == 17.0
    assert 50 < _retry_after_s(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert _retry_after_s("") == _retry_after_s("soon") == _retry_after_s(formatdate(0, usegmt=True)) == 0.0


TRUNCATED = Answer(GLB[:600], length=1000)
SHORT_WITHOUT_LENGTH = Answer(GLB[:600], length=None)
WRONG_HASH = Answer(headers={"X-Linked-ETag": f'"{"0" * 64}"'})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (TRUNCATED, "Truncated"),
        (SHORT_WITHOUT_LENGTH, "NotGlb"),
        (Answer(b""), "NotGlb"),
        (Answer(b"<html>We are down for maintenance</html>"), "NotGlb"),
        (WRONG_HASH, "ChecksumMismatch"),
        (Answer(headers={"ETag": f'"{"0" * 64}"'}), "ChecksumMismatch"),
    ],
)
def test_what_came_damaged_is_downloaded_again(server, tmp_path, answer, kind):
    server.give(NAME, answer, Answer(headers={"X-Linked-ETag": f'W/"{SHA256}"'}))
    assert fetch(asset(), tmp_path, policy(server)).attempts == 2
    (tmp_path / NAME).unlink()
    server.give(NAME, answer)
    error = failed(server, tmp_path)
    assert (error.failure.error_class, error.attempts) == (kind, 3)
    assert kind != "Truncated" or "received 600 of 1000 bytes" in str(error)
    error = failed(server, tmp_path, keep=False)
    assert error.failure.error_class == kind


def test_a_file_that_is_published_damaged_is_not_tried_again(server, tmp_path):
    text = b"this is no model"
    server.give(NAME, Answer(text, headers={"X-Linked-ETag": hashlib.sha256(text).hexdigest()}))
    error = failed(server, tmp_path)
    assert (error.failure.error_class, error.attempts) == ("NotGlb", 1)


def test_etags_that_are_no_sha256_say_nothing(server, tmp_path):
    server.give(NAME, Answer(headers={"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}))
    assert fetch(asset(), tmp_path, policy(server)).attempts == 1


def test_a_silent_server_and_a_trickling_one_time_out(server, tmp_path):
    server.give(NAME, Answer(pauses_s=0.5))
    error = failed(server, tmp_path, attempts=2, silence_s=0.1)
    assert (error.failure.error_class, error.attempts) == ("Timeout", 2)
    server.give(NAME, Answer(pauses_s=0.05))
    error = failed(server, tmp_path, attempts=1, whole_s=0.2)
    assert error.failure.error_class == "Timeout"


def test_a_refused_connection_is_tried_again(server, tmp_path):
    with pytest.raises(DownloadError) as caught:
        fetch(asset(), tmp_path, DownloadPolicy(attempts=2, backoff_s=0.01, base_url="http://127.0.0.1:9"))
    assert (caught.value.failure.error_class, caught.value.attempts) == ("Connection", 2)
    assert "the connection failed ([Errno 111] Connection refused)" in str(caught.value)
    assert isinstance(_network_failure(TimeoutError(), DownloadPolicy()), RetryableError)


@pytest.mark.parametrize("length", [-1, None])
def test_a_file_over_the_limit_is_given_up_early(server, tmp_path, length):
    big = glb(200_000)
    server.give(NAME, Answer(big, length=len(big) if length else None, pauses_s=0.001))
    started = time.monotonic()
    error = failed(server, tmp_path, max_bytes=1000)
    assert (error.failure.error_class, error.attempts, len(server.asked(NAME))) == ("TooLarge", 1, 1)
    assert time.monotonic() - started < 1.5  # all of it would take 2 s
    server.give(NAME, Answer())
    assert fetch(asset(), tmp_path, policy(server, max_bytes=1000)).size == 1000
    with pytest.raises(DownloadError, match="at least 1000 bytes") as caught:
        fetch(asset(), tmp_path, policy(server, max_bytes=999))  # also when it is cached
    assert caught.value.failure.error_class == "TooLarge"


def test_redirects_lead_on_and_bring_the_checksum(server, tmp_path):
    def moved(tag):
        return Answer(b"", 302, {"Location": f"{server.url}/store/x", "X-Linked-ETag": tag, "ETag": f'"{"1" * 64}"'})

    server.give("store/x", Answer(headers={"ETag": f'"{"2" * 64}"'}))  # of the store, about something else
    server.give(NAME, moved(f'"{SHA256}"'))
    assert fetch(asset(), tmp_path, policy(server)).sha256 == SHA256
    (tmp_path / NAME).unlink()
    server.give(NAME, moved("none"))
    assert fetch(asset(), tmp_path, policy(server)).attempts == 1
    (tmp_path / NAME).unlink()
    server.give(NAME, moved(f'"{"3" * 64}"'))
    assert failed(server, tmp_path).failure.error_class == "ChecksumMismatch"


@pytest.mark.parametrize("target", ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_to_anything_but_https_are_refused(server, tmp_path, target):
    server.give(NAME, Answer(b"", 302, {"Location": target}))
    error = failed(server, tmp_path)
    assert error.attempts == 1
    assert error.failure.error_class == "UnsafeRedirect"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "name",
    [
        f"glbs/000-001/../../../{UID}.glb",
        f"/etc/{UID}.glb",
        f"glbs/000-001/{UID}.glb\n",
        f"glbs/000-001/{UID}.gltf",
        "",
        None,
    ],
)
def test_paths_that_are_not_objaverses_are_refused_before_anything(server, tmp_path, name):
    with pytest.raises(DownloadError) as caught:
        fetch(asset(name), tmp_path / "cache", policy(server))
    assert (caught.value.failure.error_class, caught.value.attempts) == ("BadPath", 0)
    assert files(tmp_path) == []
    assert server.requests == []


def test_a_full_disk_is_said(server, tmp_path):
    server.give(NAME, Answer())
    (tmp_path / "glbs").write_text("a file where the folder should be")
    with pytest.raises(DownloadError) as caught:
        fetch(asset(), tmp_path, policy(server))
    assert caught.value.failure.error_class == "Disk"


def request_of(url):
    return requests.Request("GET", url).prepare()


def redirected(request, location):
    """The request that follows a redirect of `request`."""
    response = requests.Response()
    response.status_code, response.url, response.request = 302, request.url, request
    response._content, response._content_consumed = b"", True
    response.headers["Location"] = location
    with _Session() as session:
        return next(session.resolve_redirects(response, request, yield_requests=True))


def test_the_token_goes_to_hugging_face_alone(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.give(NAME, Answer())
    fetch(asset(), tmp_path, policy(server))
    assert server.asked(NAME)[0]["Authorization"] is None
    request = _authorize(request_of("https://huggingface.co/datasets/x"))
    assert request.headers["Authorization"] == "Bearer hf_secret"
    for elsewhere in ("https://cdn.example.org/x", "https://huggingface.co.example.org/x"):
        followed = redirected(request, elsewhere)
        assert followed.url == elsewhere
        assert "Authorization" not in followed.headers
        assert redirected(followed, "https://huggingface.co/y").headers["Authorization"] == "Bearer hf_secret"
    assert redirected(request, "/y").headers["Authorization"] == "Bearer hf_secret"
    for unsafe in ("http://huggingface.co/x", "https://example.org/huggingface.co"):
        assert "Authorization" not in _authorize(request_of(unsafe)).headers


def test_netrc_is_not_read(server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    server.give("store/x", Answer())
    server.give(NAME, Answer(b"", 302, {"Location": "/store/x"}))
    fetch(asset(), tmp_path / "cache", policy(server))
    assert [headers["Authorization"] for _, headers in server.requests] == [None, None]


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    url = "http://files.example.org"
    server.answers[f"{url}/{NAME}"] = deque([Answer()])
    assert fetch(asset(), tmp_path / "cache", DownloadPolicy(attempts=1, base_url=url)).sha256 == SHA256
    server.give(NAME, Answer())
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(asset(), tmp_path / "other", policy(server)).attempts == 1


def test_endless_redirects_are_refused(server, tmp_path):
    server.give(NAME, Answer(b"", 302, {"Location": f"/{NAME}"}))
    error = failed(server, tmp_path)
    assert (error.failure.error_class, error.attempts) == ("Http302", 1)


def test_an_impossible_token_is_not_quoted(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret\nX-Other: 1")
    with pytest.raises(DownloadError, match="HF_TOKEN") as caught:
        _authorize(request_of("https://huggingface.co/x"))
    assert "secret" not in str(caught.value)


def test_a_listing_takes_its_name_only_when_checked(server, tmp_path):
    def check(path):
        if path.read_bytes() != b"good":
            raise RetryableError("NotGood", "it is not good")

    server.give("a/list.json.gz", Answer(b"bad"), Answer(b"good"))
    path = download_listing("a/list.json.gz", tmp_path, policy(server), check)
    assert path.read_bytes() == b"good"
    server.give("b.json.gz", Answer(b"bad"))
    with pytest.raises(DownloadError, match="not good"):
        download_listing("b.json.gz", tmp_path, policy(server), check)
    assert files(tmp_path) == ["a/list.json.gz"]
