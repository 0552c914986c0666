"""Image encoders of the library timm: a convolutional network and a projection to the embedding.

A network that was pretrained on photographs also recognizes photographs, unlike a network that is trained from scratch
on renders. `train.components.backbone` loads such weights. A trained encoder is stored with all its weights, so timm
downloads nothing.

The features of such a network contain little about colors. `ImageEncoder` can therefore append the colors of the object
to the embedding (`train.model.color_grid`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dataset.errors import UserError


@dataclass(frozen=True)
class TimmEncoder:
    """Settings of an image encoder with an architecture of timm.

    `architecture` is a name that `timm.list_models()` returns. `embed_dim`, the number of channels of the embedding,
    includes those of the color grid. `image_size`, the input size of the network, is in pixels.
    """

    architecture: str
    embed_dim: int
    image_size: int
    object_fill: float | None = None
    """If set, `center_object` is applied to the images first, with this value as `fill`."""
    hidden_width: int | None = None
    """Channels of the projection's hidden layer. None: the projection is linear."""
    color_grid: int | None = None
    """Rows and columns of the grid of colors in the last channels of the embedding (`train.model.color_grid`). None: no
    grid."""

    @property
    def num_colors(self) -> int:
        """Number of channels of the color grid."""
        return 3 * (self.color_grid or 0) ** 2

    def __post_init__(self) -> None:
        """Raise ValueError if `object_fill`, `hidden_width` or `color_grid` is out of range."""
        if self.hidden_width is not None and self.hidden_width < 1:
            raise ValueError(f"hidden_width is {self.hidden_width}; it must be at least 1, or None")
        if self.object_fill is not None and not 0 < self.object_fill <= 1:
            raise ValueError(f"object_fill is {self.object_fill}; it must be above 0 and at most 1")
        if self.color_grid is not None and not (self.color_grid > 0 and self.num_colors < self.embed_dim):
            raise ValueError(
                f"color_grid is {self.color_grid}; it must be None, or at least 1 and so small that its "
                f"3 * color_grid**2 channels are fewer than the {self.embed_dim} of the embedding"
            )


class TimmVisual(nn.Module):
    """The network of open_clip's `TimmModel`, with the attributes of open_clip's other image networks."""

    def __init__(self, spec: TimmEncoder) -> None:
        """Build the network with random weights.

        Raises:
            UserError: timm has no such architecture.
        """
        super().__init__()
        import timm
        from open_clip.timm_model import TimmModel

        if not timm.is_model(spec.architecture):
            raise UserError(
                f"timm has no architecture {spec.architecture!r} for the image encoder; give a name that "
                "`timm.list_models()` returns, such as tf_efficientnet_lite0"
            )
        learned = spec.embed_dim - spec.num_colors
        network = TimmModel(
            spec.architecture, learned, image_size=spec.image_size, pool="avg", proj="linear", pretrained=False
        )
        self.trunk: nn.Module = network.trunk
        self.head: nn.Module = network.head
        if spec.hidden_width is not None:
            width = spec.hidden_width
            self.head = nn.Sequential(
                nn.Linear(self.num_features, width), nn.GELU(), nn.Linear(width, learned, bias=False)
            )
        self.image_size, self.output_dim = spec.image_size, learned

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings [b, c] of normalized images [b, 3, s, s], without a color grid."""
        embeddings: Tensor = self.head(self.trunk(images))
        return embeddings

    @property
    def num_features(self) -> int:
        """Number of pooled features of the trunk, from which the projection computes the embedding."""
        return int(self.trunk.num_features)  # type: ignore[arg-type]

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation, [1, 3, 1, 1] each, with which images are normalized."""
        config: Any = self.trunk.default_cfg
        mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        return mean, std
