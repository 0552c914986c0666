"""March the rays of a step of the optimization; on a GPU, while the networks of the step before run.

Ray marching ends with a count of samples that the host must read. If the host reads it at the beginning of a step, the
GPU has nothing to do while the host waits and then launches the many small kernels of the renderer. `MarchAhead`
marches the rays of the next step on a stream of its own, so that the host reads the counts while the GPU is busy.

The field of the next step is not known at that time. Which samples are transparent or occluded is therefore decided by
the field before the last update. The occupancy grid decides in the same way, with a field that is up to
`MarchSettings.occupancy_every` steps old.
"""

from typing import Any, NamedTuple

import torch

from distill.nerf.render import MarchedRays, march_views
from distill.sds.checkpoint import Distillation
from distill.sds.schedule import DistillSettings, RandomPurpose, StepPlan, plan_step, torch_stream


class MarchedStep(NamedTuple):
    """The plan of a step, and its rays with their samples."""

    plan: StepPlan
    marched: MarchedRays


def march_step(state: Distillation, settings: DistillSettings, step: int, num_timesteps: int) -> MarchedStep:
    """Plan a step and march its rays, with the current field and occupancy grid.

    Args:
        state: The state of the distillation.
        settings: Settings of the distillation.
        step: Index of the step, counted from 0.
        num_timesteps: Number of timesteps of the diffusion model's noise schedule.
    """
    plan = plan_step(settings, step, num_timesteps)
    marched = march_views(
        state.field,
        plan.views.c2w,
        plan.views.fov_deg,
        plan.resolution,
        settings=settings.march,
        occupancy=state.occupancy,
        generator=torch_stream(settings.seed, step, RandomPurpose.JITTER),
        device=state.field.grid.table.device,
    )
    return MarchedStep(plan, marched)


class MarchAhead:
    """Marches the rays of steps, on a GPU one step ahead.

    The rays of a step are not marched ahead if the step updates the occupancy grid first, or is the first one after a
    checkpoint. A resumed run therefore computes the same as an uninterrupted one, except for rounding, if it was not
    stopped between two regular checkpoints.

    Args:
        state: The state of the distillation.
        settings: Settings of the distillation.
        num_timesteps: Number of timesteps of the diffusion model's noise schedule.
    """

    def __init__(self, state: Distillation, settings: DistillSettings, num_timesteps: int) -> None:
        self._state, self._settings, self._num_timesteps = state, settings, num_timesteps
        device = state.field.grid.table.device
        stream: Any = torch.cuda.Stream
        self._stream = stream(device, priority=-1) if device.type == "cuda" else None
        self._field_ready: Any = None  # event: the field and the grid of the current step have been computed
        self._next: tuple[int, MarchedStep] | None = None

    def take(self, step: int) -> MarchedStep:
        """Return the plan and the samples of a step, which are computed now unless `start` did so."""
        if self._stream is not None:
            self._field_ready = torch.cuda.current_stream(self._stream.device).record_event()
        ahead, self._next = self._next, None
        if ahead is not None and ahead[0] == step:
            return ahead[1]
        return march_step(self._state, self._settings, step, self._num_timesteps)

    def start(self, step: int) -> None:
        """March the rays of the next step, if possible. Call this before the update of the field.

        On return, the current stream waits until the field may be changed.
        """
        if self._stream is None or self._field_ready is None or not self._can_march(step):
            return
        current = torch.cuda.current_stream(self._stream.device)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._field_ready)
            prepared = march_step(self._state, self._settings, step, self._num_timesteps)
        current.wait_stream(self._stream)
        for tensor in prepared.marched.tensors:
            tensor.record_stream(current)
        self._next = step, prepared

    def _can_march(self, step: int) -> bool:
        settings = self._settings
        return bool(
            step < settings.steps and step % settings.march.occupancy_every and step % settings.checkpoint_every
        )
