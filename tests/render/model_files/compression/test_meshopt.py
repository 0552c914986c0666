"""Buffers that meshoptimizer 1.3 encoded; made by tests/support/tools/compressed_gltf."""

import base64
import json

import numpy as np
import pytest

from render.model_files.compression.meshopt import decode
from tests.support.paths import ROOT

CASES = json.loads((ROOT / "tests" / "golden" / "compressed" / "buffers.json").read_text())
KINDS = {"OCTAHEDRAL": {4: "<i1", 8: "<i2"}, "QUATERNION": {8: "<i2"}, "COLOR": {4: "<u1", 8: "<u2"}}


def decoded(case, data=None):
    data = base64.b64decode(case["data"]) if data is None else data
    return decode(data, case["count"], case["stride"], case["mode"], case["filter"])


def test_every_buffer_is_read_as_meshoptimizer_reads_it():
    for case in CASES:
        plain = np.frombuffer(base64.b64decode(case["plain"]), np.uint8).reshape(case["count"], case["stride"])
        kind = KINDS.get(case["filter"], {}).get(case["stride"], "<u1")
        off = np.abs(decoded(case).view(kind).astype(int) - plain.view(kind))
        assert off.max() <= (kind[2] == "2")  # the last bit depends on the order of operations
        assert (off > 0).mean() < 0.02
    assert {(case["mode"], case["filter"]) for case in CASES} == {
        ("TRIANGLES", "NONE"),
        ("INDICES", "NONE"),
        *(("ATTRIBUTES", name) for name in ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR")),
    }


@pytest.mark.parametrize("number", range(0, len(CASES), 4))
def test_damaged_buffers_raise_or_give_as_many_bytes(number):
    """Bytes change, bytes go, bytes come: no other exception, no warning (warnings are errors here)."""
    case, random = CASES[number], np.random.default_rng(1)
    data = base64.b64decode(case["data"])
    for _ in range(40):
        damaged = bytearray(data)
        place = int(random.integers(len(damaged)))
        match int(random.integers(4)):
            case 0:
                damaged = damaged[:place]
            case 1:
                damaged.insert(place, 255)
            case _:
                damaged[place] = int(random.integers(256))
        try:
            assert decoded(case, bytes(damaged)).shape == (case["count"], case["stride"])
        except (LookupError, ValueError):
            continue


def test_a_shorter_or_longer_buffer_is_refused():
    for case in CASES:
        data = base64.b64decode(case["data"])
        for other in (b"", data[:1], data[:-1], data + b"\0"):
            with pytest.raises((LookupError, ValueError)):
                decoded(case, other)


@pytest.mark.parametrize(
    ("mode", "filter_name", "count", "stride"),
    [
        ("ATTRIBUTES", "NONE", 1, 3),
        ("ATTRIBUTES", "NONE", 1, 0),
        ("ATTRIBUTES", "NONE", 1, 260),
        ("ATTRIBUTES", "SEPIA", 1, 4),
        ("TRIANGLES", "NONE", 4, 2),
        ("TRIANGLES", "NONE", 3, 1),
        ("INDICES", "COLOR", 1, 4),
        ("STRIPS", "NONE", 3, 4),
    ],
)
def test_unknown_layouts_are_refused(mode, filter_name, count, stride):
    with pytest.raises((LookupError, ValueError)):
        decode(b"\xa0" + bytes(400), count, stride, mode, filter_name)


def test_a_false_count_is_found_before_much_is_read():
    case = next(case for case in CASES if case["mode"] == "ATTRIBUTES")
    with pytest.raises((LookupError, ValueError)):
        decode(base64.b64decode(case["data"]), 1 << 26, 4, "ATTRIBUTES", "NONE")
