"""The frozen networks of a distillation: precision, compilation and CUDA graphs.

Guidance amplifies rounding errors. With a guidance scale of 10, an error in the predicted noise appears in x0_hat about
180 times as large at timestep 980. On a GPU, the parts of the model therefore have these types:

    UNet                  float16 (10 bits of mantissa; bfloat16 has 7), as under the autocast of the released code
    last layer of UNet    float32: group norm and `conv_out`, without TensorFloat32
    guidance              float32: guidance, rescaling, x0_hat, target and loss (`distill.sds.guidance`)
    VAE, image encoder    bfloat16; group norms and the softmax of the VAE's attention compute in float32

A UNet that overflows in float16 is converted to bfloat16, and a warning is logged. On other devices, everything is
float32.
"""

import logging
from dataclasses import replace
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from train.layers.compile import CompileChoice, Compute, can_compile, prepare
from train.layers.float32_output import cast_network, keep_output_float32
from train.layers.vae_attention import use_matmul_attention
from train.model.multiview import MultiViewModel

logger = logging.getLogger(__name__)

UNET_TYPE: Final = torch.float16
OTHER_TYPE: Final = torch.bfloat16
_CHECKED_TIMESTEPS: Final = (980, 500, 20)


def to_run_precision(model: MultiViewModel, device: torch.device, unet_type: torch.dtype = UNET_TYPE) -> MultiViewModel:
    """Return a float32 model on a device, with the types of this module if the device is a GPU.

    Args:
        model: A float32 model on any device. Its parts are moved and converted in place.
        device: Device of the returned model.
        unet_type: Type of the UNet on a GPU, except its last layer: float16 or bfloat16.
    """
    gpu = device.type == "cuda"
    if gpu:
        keep_output_float32(model.unet)
    cast_network(model.unet, device, unet_type if gpu else torch.float32)
    for part in (model.vae, model.image_encoder):
        cast_network(part, device, OTHER_TYPE if gpu else torch.float32)
    return replace(model, alphas_cumprod=model.alphas_cumprod.to(device))


def prepare_networks(model: MultiViewModel, compute: Compute) -> None:
    """Freeze the UNet, and apply the options to the UNet and the VAE encoder, in place.

    With lean or fused blocks, the attention of the VAE encoder becomes two matrix products.
    """
    model.unet.requires_grad_(False)
    encoder = cast(nn.Module, model.vae.encoder)
    if compute.compile == "graphs":  # `distill.sds.cuda_graph` records the graphs, not the compiler
        compute = replace(compute, compile="whole")
    if compute.blocks != "diffusers":
        use_matmul_attention(encoder, fused_norm=compute.blocks == "fused")
    prepare(model.unet, compute)
    prepare(encoder, compute)
    if model.device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # for `Float32Conv`; there are no other float32 convolutions


def avoid_overflow(model: MultiViewModel, tokens: Tensor, num_frames: int) -> None:
    """Convert a float16 UNet to bfloat16, in place, and log a warning, if its prediction for noise is not finite.

    Args:
        model: The model, before its networks are compiled.
        tokens: Embedding of the input image, [1, 1, c], with c channels.
        num_frames: Frames per object.
    """
    if next(model.unet.parameters()).dtype != torch.float16:
        return
    settings: Any = model.unet.config
    shape = num_frames, settings.in_channels, model.spec.latent_size, model.spec.latent_size
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device)
    labels = model.labels([15.0] * num_frames, [360.0 * n / num_frames for n in range(num_frames)], 15.0, 0.0)
    for timestep in _CHECKED_TIMESTEPS:
        timesteps = torch.full((num_frames,), timestep, device=model.device)
        with torch.no_grad():
            predicted = [
                model.predict_noise(noise, timesteps, labels, token, num_frames)
                for token in (tokens, torch.zeros_like(tokens))
            ]
        if not bool(torch.stack(predicted).isfinite().all()):
            logger.warning(
                "the UNet overflows in float16 at timestep %d; it runs in bfloat16, which has larger rounding errors",
                timestep,
            )
            cast_network(model.unet, model.device, torch.bfloat16)
            return


def available_compile_choice(choice: CompileChoice, device: torch.device) -> CompileChoice:
    """Return "none" for the choice "auto", and log a warning, if networks cannot be compiled for this GPU."""
    if choice != "auto" or device.type != "cuda" or can_compile():
        return choice
    logger.warning(
        "the networks are not compiled, because the package triton is not installed, so steps take at least twice as "
        "long; install triton, or give --compile none to hide this message"
    )
    return "none"
