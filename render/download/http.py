"""One file over HTTP: streamed, capped, retried, and compared with the hash that the server names.

Hugging Face names the sha256 in `X-Linked-ETag`, beside the redirect to its store of large files. The store's own
`ETag` may be 64 hexadecimal digits too and means something else, so `ETag` counts only where nothing redirected.
"""

import hashlib
import http.client
import os
import random
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, Any, Final, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit

BASE_URL: Final = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
TOKEN_HOST: Final = "huggingface.co"  # the only one that ever sees HF_TOKEN
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
LONGEST_WAIT_S: Final = 120.0  # between attempts, whatever the server asks for
_CHUNK: Final = 1 << 18
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PASSING_STATUSES: Final = (408, 425, 429)  # and 500 to 599: another attempt may do
T = TypeVar("T")


class DownloadError(Exception):
    """A file did not come. `kind` is a word for the outcome's error class; another run may have more luck."""

    stage: Final = "download"

    def __init__(self, kind: str, message: str, attempts: int = 1) -> None:
        super().__init__(kind, message, attempts)
        self.kind, self.message, self.attempts = kind, message, attempts

    def __str__(self) -> str:
        return self.message


class Passing(Exception):
    """An attempt failed in a way that another one may mend, after at least `wait_s` seconds."""

    def __init__(self, kind: str, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.wait_s = kind, wait_s


@dataclass(frozen=True)
class Policy:
    """How files are downloaded, the same for every object of a run."""

    keep: bool = True  # in the cache; else nothing of a download outlives its use
    max_bytes: int | None = None  # a larger file is a DownloadError of kind TooLarge, also when it is cached
    attempts: int = 4
    silence_s: float = 30.0  # without a byte: Timeout
    whole_s: float = 900.0  # of one attempt
    backoff_s: float = 1.0  # before the second attempt; doubles, with jitter
    base_url: str = BASE_URL


@dataclass(frozen=True)
class Body:
    """What one answer of the server amounted to; `verified` when the server named this very hash."""

    size: int
    sha256: str
    verified: bool


def with_attempts(attempt: Callable[[], T], name: str, policy: Policy) -> tuple[T, int]:
    """What `attempt` returns, and how many it took. Raises DownloadError naming the file and the last failure."""
    number = 1
    while True:
        try:
            return attempt(), number
        except DownloadError as error:
            raise DownloadError(error.kind, f"{name}: {error}", number) from error
        except Passing as error:
            if number >= policy.attempts:
                raise DownloadError(error.kind, f"{name}: {error} ({number} attempts)", number) from error
            backoff = policy.backoff_s * 2 ** (number - 1) * random.uniform(0.5, 1.5)  # not all at once again
            time.sleep(min(LONGEST_WAIT_S, max(backoff, error.wait_s)))
            number += 1


def transfer(url: str, file: IO[bytes], policy: Policy) -> Body:
    """One attempt at the whole of `url`, into an empty file. OSErrors are the disk's; the network's are Passing."""
    deadline = time.monotonic() + policy.whole_s
    hops = _Hops()
    digest, size = hashlib.sha256(), 0
    with _opened(url, hops, policy) as response:
        declared = response.headers.get("Content-Length", "")
        check_size(int(declared) if declared.isdecimal() else 0, policy)
        for chunk in _chunks(response, deadline, policy):
            size += len(chunk)
            check_size(size, policy)
            digest.update(chunk)
            file.write(chunk)
        expected = hops.sha256 or ("" if hops.count else _sha256_of(response.headers))
    file.flush()
    if declared.isdecimal() and size != int(declared):
        raise Passing("Truncated", f"{size} bytes came of {declared}")
    if expected and digest.hexdigest() != expected:
        raise Passing("ChecksumMismatch", f"its sha256 is {digest.hexdigest()}, the server says {expected}")
    return Body(size, digest.hexdigest(), bool(expected))


def check_size(size: int, policy: Policy) -> None:
    if policy.max_bytes is not None and size > policy.max_bytes:
        raise DownloadError("TooLarge", f"at least {size} bytes; the limit is {policy.max_bytes}")


def _opened(url: str, hops: "_Hops", policy: Policy) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "isotropic3d"})
    _authorise(request)
    try:
        return urllib.request.build_opener(hops).open(request, timeout=policy.silence_s)
    except HTTPError as error:
        with error:
            raise _refusal(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _network_failure(error, policy) from error


def _chunks(response: Any, deadline: float, policy: Policy) -> Iterator[bytes]:
    """The body as it comes; a server that trickles is cut off at the deadline as well."""
    while True:
        try:
            chunk: bytes = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _network_failure(error, policy) from error
        if not chunk:
            return
        yield chunk
        if time.monotonic() > deadline:
            raise Passing("Timeout", f"not complete within {policy.whole_s:g} s")


def _network_failure(error: Exception, policy: Policy) -> Passing:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return Passing("Timeout", f"no answer for {policy.silence_s:g} s")
    return Passing("Connection", f"the connection failed ({str(reason) or type(reason).__name__})")


def _refusal(error: HTTPError) -> Exception:
    kind, message = f"Http{error.code}", f"the server answers {error.code} {error.reason}"
    if error.code in _PASSING_STATUSES or error.code >= 500:
        return Passing(kind, message, _retry_after_s(error.headers.get("Retry-After", "")))
    return DownloadError(kind, message)


def _retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for: it holds a number of them, or a date. 0 when it holds neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _authorise(request: urllib.request.Request) -> None:
    """Give HF_TOKEN to Hugging Face itself; a redirect does not inherit it."""
    token, url = os.environ.get("HF_TOKEN", "").strip(), urlsplit(request.full_url)
    if not token or url.scheme != "https" or url.hostname != TOKEN_HOST:
        return
    if not (token.isascii() and token.isprintable()):  # http.client's own complaint would quote it
        raise DownloadError("Token", "HF_TOKEN holds characters that no token has; set it again, or unset it")
    request.add_unredirected_header("Authorization", f"Bearer {token}")


class _Hops(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only (on loopback, to the same scheme) and notes the hash that comes with them."""

    def __init__(self) -> None:
        self.sha256, self.count = "", 0

    def redirect_request(  # noqa: PLR0917  (urllib's signature)
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        here, there = urlsplit(req.full_url), urlsplit(urljoin(req.full_url, newurl))
        local = here.hostname in LOOPBACK and there.hostname in LOOPBACK and there.scheme == here.scheme
        if there.scheme != "https" and not local:
            fp.close()
            raise DownloadError("UnsafeRedirect", f"the server redirects to {there.scheme}://{there.hostname}")
        self.sha256, self.count = self.sha256 or _sha256_of(headers, redirects=True), self.count + 1
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            _authorise(request)
        return request


def _sha256_of(headers: http.client.HTTPMessage, redirects: bool = False) -> str:
    """The sha256 that an answer names, or nothing. The plain ETag of one that redirects says nothing of the file."""
    tag = headers.get("X-Linked-ETag") or ("" if redirects else headers.get("ETag")) or ""
    digest = tag.removeprefix("W/").strip('"').lower()
    return digest if _SHA256.fullmatch(digest) else ""
