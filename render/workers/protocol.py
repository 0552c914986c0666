"""The messages between a worker and its Blender process: one line of JSON in each direction.

The rendered sample is written to a small tar file.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from dataset.format.manifest import Asset
from dataset.format.outcomes import Failure
from render.settings import Settings, read_settings


@dataclass(frozen=True)
class RenderJob:
    """The request to render one asset and to write the 33 members of its sample atomically to the file `tar`."""

    asset: Asset
    path: str  # of the local model file, empty for a procedural object
    asset_sha256: str  # of that file
    seed: int
    settings: Settings
    tar: str
    root: str = ""  # folder that all files the model refers to must be in; empty: the model's own folder


@dataclass(frozen=True)
class Reply:
    """The result of a job in Blender: `failure` if the object failed, otherwise the flags and timings of its sample."""

    failure: Failure | None = None
    flags: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds by part (render.blender.timing)


@dataclass(frozen=True)
class Hello:
    """The first message of a Blender process: Blender's version and device, or the error that prevents rendering."""

    version: str = ""  # of Blender
    device: str = ""  # Cycles' device: CPU, OPTIX, ...
    error: str = ""
    notice: str = ""  # for the user: a fallback to the CPU, or the measured GPU speed


def to_line(message: RenderJob | Reply | Hello) -> bytes:
    """Serialize a message as one line of JSON."""
    return json.dumps(asdict(message)).encode() + b"\n"


def parse_job(line: str) -> RenderJob:
    """Parse a line that contains a `RenderJob`."""
    raw = json.loads(line)
    return RenderJob(
        Asset(**raw["asset"]),
        raw["path"],
        raw["asset_sha256"],
        raw["seed"],
        read_settings(raw["settings"]),
        raw["tar"],
        raw.get("root", ""),
    )


def parse_reply(line: bytes) -> Reply:
    """Parse a line that contains a `Reply`."""
    raw = json.loads(line)
    failure = raw["failure"]
    if failure is not None:
        failure = Failure(**{**failure, "flags": tuple(failure["flags"])})
    return Reply(failure, tuple(raw["flags"]), raw["timings"])


def parse_hello(line: bytes) -> Hello:
    """Parse a line that contains a `Hello`."""
    return Hello(**json.loads(line))
