"""LPIPS (Zhang et al. 2018), where its package and weights are there: neither is one of this project's requirements."""

import importlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Perceptual = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float64]]


def load_perceptual(device: torch.device) -> tuple[Perceptual | None, str]:
    """(the distance [f] of pictures [f, h, w, 3] in [0, 1] from others, what to say of it); None where it is not to be
    had. With VGG, as SyncDreamer's evaluation takes it.
    """
    try:
        network = importlib.import_module("lpips").LPIPS(net="vgg", verbose=False).to(device).eval()
    except ImportError:
        return (
            None,
            "LPIPS is left out: the package lpips is not installed (pip install lpips; it fetches VGG's weights).",
        )
    except OSError as error:
        return None, f"LPIPS is left out: VGG's weights cannot be had ({error})."

    @torch.no_grad()
    def distance(pictures: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
        first, second = (torch.from_numpy(a).permute(0, 3, 1, 2).to(device) * 2 - 1 for a in (pictures, truth))
        found: NDArray[np.float64] = network(first, second).flatten().double().cpu().numpy()
        return found

    return distance, "LPIPS with VGG, by the package lpips."
