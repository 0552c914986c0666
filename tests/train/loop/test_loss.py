"""Loss weights against the paper's formula, and recomputed activations."""

import pytest
import torch
from torch import Tensor

from tests.support.train_micro import micro_model
from train.data.images import ImageBatch
from train.data.sampling import DiffusionNoise, diffusion_loss
from train.loop.loss import encode_views, min_snr_weights, object_losses, predict, training_loss, velocity_weights
from train.model.multiview import MultiViewModel
from train.model.noise_schedule import noise_schedule


def _draw(batch: int, frames: int) -> tuple[Tensor, DiffusionNoise]:
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, frames, 4, 8, 8, generator=random)
    prediction = torch.randn(batch * (frames + 1), 4, 8, 8, generator=random)  # with a reference in front
    timesteps = torch.tensor([0, 250, 600, 999])[:batch]
    return prediction, DiffusionNoise(timesteps, noise, torch.zeros(batch, dtype=torch.bool))


def _naive_loss(prediction: Tensor, draw: DiffusionNoise, gamma: float | None) -> float:
    alphas, (batch, frames) = noise_schedule().double(), draw.noise.shape[:2]
    total = 0.0
    for i in range(batch):
        alpha = float(alphas[draw.timesteps[i]])
        snr = alpha / (1 - alpha)
        weight = 1.0 if gamma is None else min(snr, gamma) / snr
        error = 0.0
        for frame in range(frames):
            difference = prediction[i * (frames + 1) + 1 + frame] - draw.noise[i, frame]
            error += float(difference.double().square().mean()) / frames
        total += weight * error / batch
    return total


@pytest.mark.parametrize("gamma", [None, 0.5, 5.0])
def test_losses_are_the_formulas(gamma: float | None) -> None:
    prediction, draw = _draw(4, 3)
    loss = training_loss(prediction, draw, noise_schedule(), gamma)
    assert float(loss) == pytest.approx(_naive_loss(prediction, draw, gamma), rel=1e-5)
    assert float(object_losses(prediction, draw.noise).mean()) == pytest.approx(
        float(diffusion_loss(prediction, draw.noise)), rel=1e-6
    )


def test_min_snr_leaves_late_timesteps_alone_and_weighs_early_ones_down() -> None:
    alphas = noise_schedule()
    weights = min_snr_weights(torch.arange(1000), alphas, 5.0)
    snr = alphas / (1 - alphas)
    assert torch.equal(weights[snr <= 5], torch.ones(int((snr <= 5).sum())))
    assert bool((weights[snr > 5] < 1).all())
    assert float(weights[0]) == pytest.approx(5 / float(snr[0]), rel=1e-5)
    prediction, draw = _draw(4, 2)
    assert float(training_loss(prediction, draw, alphas, 1e9)) == pytest.approx(
        float(diffusion_loss(prediction, draw.noise)), rel=1e-6
    )


def test_velocity_weights_make_the_loss_that_of_velocity() -> None:
    """Without a cap it is the squared error of v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z, where z follows eps."""
    prediction, draw = _draw(4, 2)
    alphas = noise_schedule().double()
    alpha = alphas[draw.timesteps].view(-1, 1, 1, 1, 1)
    clean = torch.randn(draw.noise.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * draw.noise

    def velocity(noise: Tensor) -> Tensor:
        implied = (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * implied

    predicted = prediction.view(4, 3, 4, 8, 8)[:, 1:].double()
    expected = (velocity(predicted) - velocity(draw.noise.double())).square().mean()
    loss = training_loss(prediction, draw, noise_schedule(), velocity_cap=1e9)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    weights = velocity_weights(torch.arange(1000), noise_schedule(), 20.0)
    assert float(weights[0]) == pytest.approx(1, abs=0.01)
    assert float(weights[-1]) == 20.0


def _gradients(model: MultiViewModel) -> tuple[dict[str, Tensor], int]:
    """Gradients of one stage-2 micro-batch, and how often the first residual block ran."""
    random = torch.Generator().manual_seed(1)
    views = ImageBatch(
        torch.rand(2, 3, 32, 32, generator=random),
        torch.rand(2, 4, 3, 32, 32, generator=random),
        torch.randn(2, 4, 16, generator=random),
        torch.randn(2, 1, 16, generator=random),
    )
    noise = torch.randn(2, 4, 4, 8, 8, generator=random)
    draw = DiffusionNoise(torch.tensor([10, 700]), noise, torch.tensor([False, True]))
    runs: list[int] = []
    block = model.unet.down_blocks[0].resnets[0]
    handle = block.register_forward_pre_hook(lambda *_: runs.append(1))  # recomputing stops before the end
    model.unet.train().zero_grad(set_to_none=True)
    encoded = encode_views(model, views, "attention")
    training_loss(predict(model.unet, encoded, draw, model.alphas_cumprod), draw, model.alphas_cumprod).backward()
    handle.remove()
    return {name: p.grad.clone() for name, p in model.unet.named_parameters() if p.grad is not None}, len(runs)


def test_recomputed_activations_give_the_same_gradients() -> None:
    plain, once = _gradients(micro_model())
    model = micro_model()
    model.unet.enable_gradient_checkpointing()
    recomputed, twice = _gradients(model)
    assert (once, twice) == (1, 2)
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)
