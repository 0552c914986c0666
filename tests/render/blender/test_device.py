"""Which device Cycles renders on. There is no GPU here: Blender's preferences are played by fakes."""

from types import SimpleNamespace

import pytest

pytest.importorskip("bpy", reason="Blender's module is installed on Python 3.11 only")

from dataset.errors import UserError
from render.blender import device
from render.settings import parse_device


class Preferences:
    """Cycles' preferences on a machine with the given devices, as {backend: [names]}."""

    def __init__(self, found, active=True):
        self.compute_device_type, self._found, self._active = "NONE", found, active
        self.devices = [
            SimpleNamespace(id=f"{backend}_{name}", type=backend, use=True)
            for backend in found
            for name in found[backend]
        ]

    def get_device_types(self, _context):
        return [("NONE", "None", "", 0), *((backend, backend, "", i) for i, backend in enumerate(self._found, start=1))]

    def get_devices_for_type(self, backend):
        return [one for one in self.devices if one.type in (backend, "CPU")] if self._found.get(backend) else []

    def has_active_device(self):
        return self._active


@pytest.fixture
def machine(monkeypatch):
    def with_devices(found, active=True):
        preferences = Preferences(found, active)
        monkeypatch.setattr(device, "_preferences", lambda: preferences)
        return preferences

    return with_devices


def scene():
    return SimpleNamespace(cycles=SimpleNamespace(device="", denoising_use_gpu=None))


@pytest.mark.parametrize(
    ("found", "backend"),
    [
        ({"CUDA": ["a"], "OPTIX": ["a"]}, "OPTIX"),
        ({"OPTIX": [], "CUDA": ["a"]}, "CUDA"),
        ({"METAL": ["m"], "HIP": ["h"]}, "HIP"),
        ({"METAL": ["m"]}, "METAL"),
    ],
)
def test_the_best_backend_that_has_a_device(machine, found, backend):
    machine(found)
    assert device.choose("gpu") == (backend, "")
    assert device.choose("auto") == (backend, "")
    assert device.choose("cpu") == ("CPU", "")


def test_without_a_gpu_auto_says_that_it_falls_back_and_gpu_is_an_error(machine):
    machine({"CUDA": []})
    chosen, notice = device.choose("auto")
    assert chosen == "CPU"
    assert "no GPU" in notice
    assert "CPU" in notice
    with pytest.raises(UserError, match="--device cpu"):
        device.choose("gpu")


def test_one_gpu_is_switched_on_and_the_cpu_off(machine):
    preferences, opened = machine({"CUDA": ["0", "1"], "CPU": ["x"]}), scene()
    device.use(opened, "CUDA")
    assert [one.use for one in preferences.devices] == [True, False, False]
    assert (opened.cycles.device, opened.cycles.denoising_use_gpu) == ("GPU", True)
    assert preferences.compute_device_type == "CUDA"


def test_the_cpu_needs_no_preferences(machine):
    opened = scene()
    device.use(opened, "CPU")
    assert (opened.cycles.device, opened.cycles.denoising_use_gpu) == ("CPU", False)


def test_a_backend_that_cycles_has_switched_off_is_an_error(machine):
    machine({"CUDA": ["0"]}, active=False)
    with pytest.raises(UserError, match="CUDA"):
        device.use(scene(), "CUDA")


def test_a_rate_that_a_core_could_make_unmasks_a_silent_fallback():
    samples = device.CHECK_RESOLUTION**2 * device.CHECK_SAMPLES
    times = iter([0.0, samples / 100e6, 0.0, samples / 2e6])
    rendered = []
    evidence = device.check_rate("CUDA", lambda: rendered.append(1), lambda: next(times))
    assert evidence == "100.0 million samples per second"
    with pytest.raises(UserError, match=r"CUDA device: the rendering reaches only 2\.0 million"):
        device.check_rate("CUDA", lambda: rendered.append(1), lambda: next(times))
    assert rendered == [1, 1]


def test_device_names():
    assert parse_device("auto") == "auto"
    with pytest.raises(UserError, match="auto, cpu, gpu"):
        parse_device("tpu")
