"""The messages between a worker and its Blender process: one JSON line in each direction.

The rendered sample is written to a small tar file.
"""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from dataset.format.manifest import Asset
from dataset.format.outcomes import Stage
from render.settings import Settings


@dataclass(frozen=True)
class RenderJob:
    """Render one asset and write its 33 members to the file `tar` atomically."""

    asset: Asset
    path: str  # of the local model file, empty for a procedural object
    asset_sha256: str  # of that file
    seed: int
    settings: Settings
    tar: str


@dataclass(frozen=True)
class Reply:
    """The result of a job in Blender. `stage`, `error_class` and `message` are empty on success."""

    status: Literal["ok", "failed"]
    stage: Stage = ""
    error_class: str = ""
    message: str = ""
    flags: tuple[str, ...] = ()
    asset_sha256: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds by part (render.blender.timing)


@dataclass(frozen=True)
class Hello:
    """The first line of a Blender process: its version and device, or the error that prevents rendering."""

    version: str = ""  # of Blender
    device: str = ""  # Cycles' device: CPU, OPTIX, ...
    error: str = ""
    notice: str = ""  # for the user: a fallback to the CPU, or the measured GPU speed


def to_line(message: RenderJob | Reply | Hello) -> bytes:
    return json.dumps(asdict(message)).encode() + b"\n"


def parse_job(line: str) -> RenderJob:
    raw = json.loads(line)
    return RenderJob(
        Asset(**raw["asset"]), raw["path"], raw["asset_sha256"], raw["seed"], Settings(**raw["settings"]), raw["tar"]
    )


def parse_reply(line: bytes) -> Reply:
    raw = json.loads(line)
    return Reply(**{**raw, "flags": tuple(raw["flags"])})


def parse_hello(line: bytes) -> Hello:
    return Hello(**json.loads(line))


def pack(members: Mapping[str, bytes]) -> bytes:
    """Serialize the members of a sample as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """The members of a tar that was made by `pack`."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
