"""Download one file over HTTP, with a size limit, retries and verification against the server's sha256.

Hugging Face sends the sha256 in `X-Linked-ETag`, with the redirect to its storage server. The storage server's own
`ETag` may also be 64 hexadecimal digits but is not the sha256, so `ETag` is used only when there was no redirect.
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

from dataset.format.outcomes import Failure

BASE_URL: Final = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
TOKEN_HOST: Final = "huggingface.co"  # the only host that HF_TOKEN is sent to
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
LONGEST_WAIT_S: Final = 120.0  # between attempts, whatever the server asks for
_CHUNK: Final = 1 << 18
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_RETRYABLE_STATUSES: Final = (408, 425, 429)  # and 500 to 599
T = TypeVar("T")


class DownloadError(Exception):
    """A download failed. `kind` is the error class of the outcome; a later run may succeed."""

    def __init__(self, kind: str, message: str, attempts: int = 1) -> None:
        super().__init__(kind, message, attempts)
        self.failure, self.attempts = Failure("download", kind, message), attempts

    def __str__(self) -> str:
        return self.failure.message


class RetryableError(Exception):
    """An attempt failed and may be retried after at least `wait_s` seconds."""

    def __init__(self, kind: str, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.wait_s = kind, wait_s


@dataclass(frozen=True)
class DownloadPolicy:
    """How files are downloaded; the same for every object of a run."""

    keep: bool = True  # files in the cache; else delete them after use
    max_bytes: int | None = None  # a larger file is a DownloadError of kind TooLarge, also when it is cached
    attempts: int = 4
    silence_s: float = 30.0  # timeout without a received byte
    whole_s: float = 900.0  # timeout of a whole attempt
    backoff_s: float = 1.0  # before the second attempt; doubles, with jitter
    base_url: str = BASE_URL


@dataclass(frozen=True)
class ResponseBody:
    """Size and sha256 of a downloaded body. `verified` is True if the server sent the same hash."""

    size: int
    sha256: str
    verified: bool


def with_retries(attempt: Callable[[], T], name: str, policy: DownloadPolicy) -> tuple[T, int]:
    """Call `attempt` until it succeeds; return its result and the number of attempts.

    Raises DownloadError, which names the file and the last failure, when no further attempt is allowed or useful.
    """
    number = 1
    while True:
        try:
            return attempt(), number
        except DownloadError as error:
            raise DownloadError(error.failure.error_class, f"{name}: {error}", number) from error
        except RetryableError as error:
            if number >= policy.attempts:
                raise DownloadError(error.kind, f"{name}: {error} ({number} attempts)", number) from error
            backoff = policy.backoff_s * 2 ** (number - 1) * random.uniform(0.5, 1.5)  # not all at once again
            time.sleep(min(LONGEST_WAIT_S, max(backoff, error.wait_s)))
            number += 1


def transfer(url: str, file: IO[bytes], policy: DownloadPolicy) -> ResponseBody:
    """Download `url` into an empty file, in one attempt.

    Raises RetryableError on a network failure or a wrong hash, DownloadError when a retry is useless, and OSError when
    the disk cannot be written.
    """
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
        raise RetryableError("Truncated", f"received {size} of {declared} bytes")
    if expected and digest.hexdigest() != expected:
        raise RetryableError("ChecksumMismatch", f"its sha256 is {digest.hexdigest()}, the server says {expected}")
    return ResponseBody(size, digest.hexdigest(), bool(expected))


def check_size(size: int, policy: DownloadPolicy) -> None:
    """Raise DownloadError when `size` in bytes exceeds the policy's limit."""
    if policy.max_bytes is not None and size > policy.max_bytes:
        raise DownloadError("TooLarge", f"at least {size} bytes; the limit is {policy.max_bytes}")


def _opened(url: str, hops: "_Hops", policy: DownloadPolicy) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "isotropic3d"})
    _authorize(request)
    try:
        return urllib.request.build_opener(hops).open(request, timeout=policy.silence_s)
    except HTTPError as error:
        with error:
            raise _refusal(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _network_failure(error, policy) from error


def _chunks(response: Any, deadline: float, policy: DownloadPolicy) -> Iterator[bytes]:
    """Yield the chunks of the body. Raises RetryableError at the deadline, even if the server still sends slowly."""
    while True:
        try:
            chunk: bytes = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _network_failure(error, policy) from error
        if not chunk:
            return
        yield chunk
        if time.monotonic() > deadline:
            raise RetryableError("Timeout", f"not complete within {policy.whole_s:g} s")


def _network_failure(error: Exception, policy: DownloadPolicy) -> RetryableError:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return RetryableError("Timeout", f"no answer for {policy.silence_s:g} s")
    return RetryableError("Connection", f"the connection failed ({str(reason) or type(reason).__name__})")


def _refusal(error: HTTPError) -> Exception:
    kind, message = f"Http{error.code}", f"the server answers {error.code} {error.reason}"
    if error.code in _RETRYABLE_STATUSES or error.code >= 500:
        return RetryableError(kind, message, _retry_after_s(error.headers.get("Retry-After", "")))
    return DownloadError(kind, message)


def _retry_after_s(value: str) -> float:
    """Return the wait in seconds of a Retry-After header, a number of seconds or a date; 0 if it is neither."""
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _authorize(request: urllib.request.Request) -> None:
    """Send HF_TOKEN to Hugging Face only; redirects do not inherit it."""
    token, url = os.environ.get("HF_TOKEN", "").strip(), urlsplit(request.full_url)
    if not token or url.scheme != "https" or url.hostname != TOKEN_HOST:
        return
    if not (token.isascii() and token.isprintable()):  # the error of http.client would print the token
        raise DownloadError("Token", "HF_TOKEN has characters that are not valid in a token; set it again or unset it")
    request.add_unredirected_header("Authorization", f"Bearer {token}")


class _Hops(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https only (on loopback, to the same scheme), and keep the hash that comes with them."""

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
            _authorize(request)
        return request


def _sha256_of(headers: http.client.HTTPMessage, redirects: bool = False) -> str:
    """Return the sha256 in the headers, or "". The ETag of a redirect does not describe the file and is ignored."""
    tag = headers.get("X-Linked-ETag") or ("" if redirects else headers.get("ETag")) or ""
    digest = tag.removeprefix("W/").strip('"').lower()
    return digest if _SHA256.fullmatch(digest) else ""
