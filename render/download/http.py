"""Download one file over HTTP, with a size limit, retries and verification against the server's sha256.

Hugging Face sends the sha256 in `X-Linked-ETag`, with the redirect to its storage server. The storage server's own
`ETag` may also be 64 hexadecimal digits but is not the sha256, so `ETag` is used only when there was no redirect.
"""

import hashlib
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from dataset.format.outcomes import Failure

BASE_URL: Final = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
TOKEN_HOST: Final = "huggingface.co"  # the only host that HF_TOKEN is sent to
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
LONGEST_WAIT_S: Final = 120.0  # between attempts, whatever the server asks for
_CHUNK: Final = 1 << 18
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MOST_REDIRECTS: Final = 10
# `with_retries` repeats the requests: all failures share one limit, also those found in a complete body.
_RETRY: Final = Retry(status_forcelist=(408, 425, 429, *range(500, 1000)), retry_after_max=int(LONGEST_WAIT_S))
T = TypeVar("T")


class DownloadError(Exception):
    """A download failed; a later run may succeed. `kind` is the name of the error in the outcome table."""

    def __init__(self, kind: str, message: str, attempts: int = 1) -> None:
        super().__init__(kind, message, attempts)
        self.failure, self.attempts = Failure("download", kind, message), attempts

    def __str__(self) -> str:
        return self.failure.message


class RetryableError(Exception):
    """One attempt of a download failed; the next attempt may begin after at least `wait_s` seconds."""

    def __init__(self, kind: str, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.wait_s = kind, wait_s


@dataclass(frozen=True)
class DownloadPolicy:
    """Settings for downloading files; the same for every object of a run."""

    keep: bool = True  # files in the cache; else delete them after use
    max_bytes: int | None = None  # a larger file is a DownloadError of kind TooLarge, also when it is cached
    attempts: int = 4
    silence_s: float = 30.0  # timeout without a received byte
    whole_s: float = 900.0  # timeout of a whole attempt
    backoff_s: float = 1.0  # before the second attempt; doubles, with jitter
    base_url: str = BASE_URL


@dataclass(frozen=True)
class ResponseBody:
    """Size in bytes and sha256 of a downloaded file. `verified` is True if the server sent the same sha256."""

    size: int
    sha256: str
    verified: bool


def with_retries(attempt: Callable[[], T], name: str, policy: DownloadPolicy) -> tuple[T, int]:
    """Call `attempt` until it succeeds. Return the result of the last call and the number of calls.

    Args:
        attempt: Makes one attempt of a download; raises RetryableError or DownloadError when the attempt fails.
        name: Name of the downloaded file, for the error message.
        policy: The largest number of attempts and the times between them.

    Raises DownloadError when no further attempt is allowed or useful. Its message names the file and the last failure.
    """
    number = 1
    while True:
        try:
            return attempt(), number
        except DownloadError as error:
            raise DownloadError(error.failure.error_class, f"{name} cannot be downloaded: {error}", number) from error
        except RetryableError as error:
            if number >= policy.attempts:
                message = f"{name} cannot be downloaded: {error} ({number} attempts)"
                raise DownloadError(error.kind, message, number) from error
            backoff = policy.backoff_s * 2 ** (number - 1) * random.uniform(0.5, 1.5)  # not all at once again
            time.sleep(min(LONGEST_WAIT_S, max(backoff, error.wait_s)))
            number += 1


def transfer(url: str, file: IO[bytes], policy: DownloadPolicy) -> ResponseBody:
    """Download `url` into the open, empty `file`, in one attempt.

    Raises RetryableError on a network failure or a wrong hash, DownloadError when a retry is useless, and OSError when
    the disk cannot be written.
    """
    deadline = time.monotonic() + policy.whole_s
    digest, size = hashlib.sha256(), 0
    with _Session() as session, _opened(session, url, policy) as response:
        declared = response.headers.get("Content-Length", "")
        check_size(int(declared) if declared.isdecimal() else 0, policy)
        for chunk in _chunks(response, deadline, policy):
            size += len(chunk)
            check_size(size, policy)
            digest.update(chunk)
            file.write(chunk)
        expected = _expected_sha256(response)
    file.flush()
    if declared.isdecimal() and size != int(declared):
        raise RetryableError("Truncated", f"received {size} of {declared} bytes before the connection ended")
    if expected and digest.hexdigest() != expected:
        raise RetryableError(
            "ChecksumMismatch",
            f"the downloaded bytes have the sha256 {digest.hexdigest()}, but the server announced {expected}",
        )
    return ResponseBody(size, digest.hexdigest(), bool(expected))


def check_size(size: int, policy: DownloadPolicy) -> None:
    """Raise DownloadError when a file of `size` bytes exceeds the limit `policy.max_bytes`."""
    if policy.max_bytes is not None and size > policy.max_bytes:
        raise DownloadError(
            "TooLarge", f"the file has at least {size} bytes; the limit is {policy.max_bytes} bytes (--max-file-mb)"
        )


class _Adapter(HTTPAdapter):
    """HTTP adapter that also trusts the certificates of the system, SSL_CERT_FILE and SSL_CERT_DIR."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=ssl.create_default_context(), **kwargs)


class _Session(requests.Session):
    """HTTP session that follows redirects only to https (on loopback: the same scheme). Ignores ~/.netrc, ALL_PROXY."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env, self.auth, self.max_redirects = False, _authorize, _MOST_REDIRECTS
        self.headers.update({"User-Agent": "isotropic3d", "Accept-Encoding": "identity"})
        self.mount("https://", _Adapter())

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        here, there = urlsplit(response.url), urlsplit(prepared_request.url or "")
        local = here.hostname in LOOPBACK and there.hostname in LOOPBACK and there.scheme == here.scheme
        if there.scheme != "https" and not local:
            raise DownloadError(
                "UnsafeRedirect",
                f"the server redirects to {there.scheme}://{there.hostname}; only redirects to https are followed",
            )
        prepared_request.headers.pop("Authorization", None)
        _authorize(prepared_request)

    def rebuild_proxies(
        self, prepared_request: requests.PreparedRequest, proxies: dict[str, str] | None
    ) -> dict[str, str]:
        return _proxies(prepared_request.url or "")


def _opened(session: requests.Session, url: str, policy: DownloadPolicy) -> requests.Response:
    try:
        response = session.get(url, stream=True, timeout=policy.silence_s, proxies=_proxies(url))
    except requests.TooManyRedirects as error:
        raise _refusal(cast(requests.Response, error.response)) from error
    except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
        raise _network_failure(error, policy) from error
    if not 200 <= response.status_code < 300:
        with response:
            raise _refusal(response)
    return response


def _chunks(response: requests.Response, deadline: float, policy: DownloadPolicy) -> Iterator[bytes]:
    """Yield the chunks of the body. Raises RetryableError at the deadline, even if the server still sends slowly."""
    response.raw.enforce_content_length = False  # the caller checks the size
    while True:
        try:
            chunk: bytes = response.raw.read1(_CHUNK)  # iter_content would wait for a whole chunk
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise _network_failure(error, policy) from error
        if not chunk:
            return
        yield chunk
        if time.monotonic() > deadline:
            raise RetryableError("Timeout", f"the download was not complete within {policy.whole_s:g} s")


def _network_failure(error: BaseException, policy: DownloadPolicy) -> RetryableError:
    wrappers = (requests.RequestException, urllib3.exceptions.HTTPError)
    while isinstance(error, wrappers) and (inner := error.__cause__ or error.__context__):
        error = inner
    if isinstance(error, TimeoutError):
        return RetryableError("Timeout", f"the server sent nothing for {policy.silence_s:g} s")
    return RetryableError("Connection", f"the connection failed ({str(error) or type(error).__name__})")


def _refusal(response: requests.Response) -> Exception:
    kind, message = f"Http{response.status_code}", f"the server answers {response.status_code} {response.reason}"
    if _RETRY.is_retry("GET", response.status_code):
        return RetryableError(kind, message, _retry_after_s(response.headers.get("Retry-After", "")))
    return DownloadError(kind, message)


def _retry_after_s(value: str) -> float:
    """Return the seconds to wait by a Retry-After header (a number of seconds, or a date); 0 if it is neither."""
    try:
        return _RETRY.parse_retry_after(value)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0


def _authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add HF_TOKEN to a request to Hugging Face; redirects do not inherit it."""
    token, url = os.environ.get("HF_TOKEN", "").strip(), urlsplit(request.url or "")
    if not token or url.scheme != "https" or url.hostname != TOKEN_HOST:
        return request
    if not (token.isascii() and token.isprintable()):  # the error of requests would print the token
        raise DownloadError(
            "Token",
            "the environment variable HF_TOKEN has characters that are not valid in a token; correct or unset HF_TOKEN",
        )
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def _proxies(url: str) -> dict[str, str]:
    """Return the proxy for a URL by scheme, from http_proxy, https_proxy and no_proxy."""
    parts, proxies = urlsplit(url), getproxies()
    return {parts.scheme: proxies[parts.scheme]} if parts.scheme in proxies and not proxy_bypass(parts.netloc) else {}


def _expected_sha256(response: requests.Response) -> str:
    """Return the sha256 that the server or the redirects to it announce, or ""."""
    if not response.history:
        return _sha256_of(response.headers)
    return next(filter(None, (_sha256_of(hop.headers, redirects=True) for hop in response.history)), "")


def _sha256_of(headers: Mapping[str, str], redirects: bool = False) -> str:
    """Return the sha256 in the headers, or "". The ETag of a redirect does not describe the file and is ignored."""
    tag = headers.get("X-Linked-ETag") or ("" if redirects else headers.get("ETag")) or ""
    digest = tag.removeprefix("W/").strip('"').lower()
    return digest if _SHA256.fullmatch(digest) else ""
