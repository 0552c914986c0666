"""Load the metric LPIPS (Zhang et al. 2018) if the package lpips and its weights are available."""

import importlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Perceptual = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float64]]


def load_perceptual(device: torch.device) -> tuple[Perceptual | None, str]:
    """Load the metric LPIPS with the network VGG, as in SyncDreamer's evaluation.

    Returns:
        First, a function of two batches of f images [f, h, w, 3] in [0, 1] that returns the f distances [f] between
        images at the same index; None if LPIPS is not available. Second, a note for the report that says
        whether LPIPS is measured.
    """
    try:
        network = importlib.import_module("lpips").LPIPS(net="vgg", verbose=False).to(device).eval()
    except ImportError:
        return (
            None,
            "LPIPS is left out: the package lpips is not installed (pip install lpips; it downloads VGG's weights).",
        )
    except OSError as error:
        return None, f"LPIPS is left out: VGG's weights cannot be downloaded ({error})."

    @torch.no_grad()
    def distance(images: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
        first, second = (torch.from_numpy(a).permute(0, 3, 1, 2).to(device) * 2 - 1 for a in (images, truth))
        distances: NDArray[np.float64] = network(first, second).flatten().double().cpu().numpy()
        return distances

    return distance, "LPIPS with VGG, computed by the package lpips."
