"""Counted operations against torch's own count of a real step, and model FLOPs utilization."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from train.data.sampling import DiffusionNoise
from train.loop.flops import MfuMeter, matmul_peak, mfu_meter, number_of_frames, object_flops
from train.loop.loss import Encoded, predict, training_loss
from train.model.noise_schedule import noise_schedule
from train.model.reference import ReferenceMode, prepare_for_reference
from train.model.unet import UNetShape, build_unet

SHAPE = UNetShape(4, 8, (32, 32), (True, False), 1, 16, 24, norm_groups=8)
CPU = torch.device("cpu")

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.integration]


@pytest.mark.parametrize("use", ["attention", "none", "channels"])
@pytest.mark.parametrize("targets", [1, 4])
def test_the_count_of_a_step_is_torchs_count_of_a_real_one(use: ReferenceMode, targets: int) -> None:
    unet = prepare_for_reference(build_unet(SHAPE), use).train()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    counted = object_flops(unet, use, targets)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert all(parameter.grad is None for parameter in unet.parameters())
    objects = 3
    latents = torch.randn(objects, targets, 4, 8, 8)
    encoded = Encoded(
        latents,
        None if use == "none" else torch.randn(objects, 4, 8, 8),
        torch.randn(objects, targets, 16),
        torch.randn(objects, 1, 16),
        torch.randn(objects, 1, 24),
        use,
    )
    draw = DiffusionNoise(torch.tensor([1, 2, 3]), torch.randn_like(latents), torch.tensor([False, True, False]))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        training_loss(predict(unet, encoded, draw, noise_schedule()), draw, noise_schedule()).backward()
    assert counted * objects == counter.get_total_flops() > 0


def test_a_reference_frame_costs_more_than_a_view_and_channels_next_to_nothing() -> None:
    plain = build_unet(SHAPE)
    frames = {targets: object_flops(plain, "none", targets) for targets in (4, 5)}
    # the frame in front is one more to compute; that nothing is asked of its prediction saves nothing before the end
    assert object_flops(plain, "attention", 4) == pytest.approx(frames[5], rel=1e-3)
    assert frames[5] > 5 / 4 * frames[4]  # attention over all of them
    widened = prepare_for_reference(build_unet(SHAPE), "channels")
    assert frames[4] < object_flops(widened, "channels", 4) < 1.1 * frames[4]


def test_the_share_is_work_over_time_and_peak() -> None:
    assert MfuMeter({4: 3e12}, peak=1e15).mfu(2e14, 0.5) == pytest.approx(0.4)


def test_the_peak_is_measured_and_both_shapes_are_counted() -> None:
    assert 1e6 < matmul_peak(CPU, side=32) < 1e16
    unet = build_unet(SHAPE)
    rates = mfu_meter(unet, "attention", (1, 4), CPU, side=32)
    assert 0 < rates.per_object[2] < rates.per_object[5]  # frames, with the reference
    assert rates.per_object.keys() == {2, 5}
    dropping = mfu_meter(unet, "attention", (1, 4), CPU, side=32, drops_reference=True).per_object
    assert dropping == rates.per_object | {n: object_flops(unet, "none", n) for n in (1, 4)}
    assert [number_of_frames("attention", 4), number_of_frames("attention", 4, dropped=True)] == [5, 4]
    assert [number_of_frames(use, 4, dropped=dropped) for use in ("channels", "none") for dropped in (0, 1)] == [4] * 4
