"""A local HTTP server with queued answers, and the object whose file it serves."""

import hashlib
import http.server
import struct
import time
from collections import deque

from dataset.format.manifest import Asset
from render.download.http import DownloadPolicy

UID = "0123456789abcdef" * 2
NAME = f"glbs/000-001/{UID}.glb"


def glb(size=1000):
    return struct.pack("<4sII", b"glTF", 2, size) + bytes(range(256)) * (size // 256 + 1)


GLB = glb()[:1000]
SHA256 = hashlib.sha256(GLB).hexdigest()


class Answer:
    """One answer of the server. `length` overrides Content-Length (None: none), `pauses_s` precedes each 100 bytes."""

    def __init__(self, body=GLB, status=200, headers=(), length=-1, pauses_s=0.0):
        self.body, self.status, self.headers, self.pauses_s = body, status, dict(headers), pauses_s
        self.length = len(body) if length == -1 else length


class Server(http.server.ThreadingHTTPServer):
    """Gives the queued answers of a path, then repeats the last one, and records the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests = {}, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def give(self, name, *answers):
        self.answers[f"/{name}"] = deque(answers)

    def asked(self, name):
        return [headers for path, headers in self.requests if path == f"/{name}"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers))
        queue = self.server.answers.get(self.path) or deque([Answer(b"no such file", 404)])
        answer = queue.popleft() if len(queue) > 1 else queue[0]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.length is not None:
            self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        for start in range(0, len(answer.body), 100):
            time.sleep(answer.pauses_s)
            try:
                self.wfile.write(answer.body[start : start + 100])
            except OSError:
                return

    def log_message(self, *_):
        """Do not log."""


def asset(name=NAME, uid=UID):
    return Asset(uid, "objaverse", objaverse_path=name)


def policy(server, keep=True, max_bytes=None, *, attempts=3, silence_s=5.0, whole_s=30.0):
    return DownloadPolicy(keep, max_bytes, attempts, silence_s, whole_s, backoff_s=0.01, base_url=server.url)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
