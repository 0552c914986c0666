"""Image encoders of the library timm: a convolutional network and a projection to the embedding.

A network that was pretrained on photographs also recognizes photographs, unlike a network that is trained from scratch
on renders. `train.components.backbone` loads such weights. A trained encoder is stored with all its weights, so timm
downloads nothing.

Such a network was trained to ignore color. An encoder can therefore append the colors of the object to the embedding
(`color_grid`), which are as exact for a photograph as for a render.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from dataset.errors import UserError
from dataset.images.prepare import WHITE_LEVEL

_COLOR_SCALE: Final = 6.0  # the standard deviation of the colors over renders is then about that of the other channels
_CELL_PRIOR: Final = 0.05  # weight of the object's mean color in the color of a cell, as a fraction of the cell


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
    """Rows and columns of the grid of colors (`color_grid`) in the last channels of the embedding. None: no grid."""

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
        self.image_size, self.output_dim, self.color_grid = spec.image_size, spec.embed_dim, spec.color_grid

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings [b, c] of normalized images [b, 3, s, s]. With a color grid, they are float32."""
        embeddings: Tensor = self.head(self.trunk(images))
        if self.color_grid is None:
            return embeddings
        mean, std = (each.to(images.device) for each in self.mean_and_std())
        return torch.cat([embeddings.float(), color_grid(images * std + mean, self.color_grid)], 1)

    @property
    def num_features(self) -> int:
        """Number of pooled features of the trunk, from which the projection computes the embedding."""
        return int(self.trunk.num_features)  # type: ignore[arg-type]

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation, [1, 3, 1, 1] each, with which images are normalized."""
        config: Any = self.trunk.default_cfg
        mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
        return mean, std


def color_grid(rgb: Tensor, side: int) -> Tensor:
    """Return the colors [n, 3 * side**2] of objects in a grid of `side` x `side` cells, centered and scaled.

    The color of a cell is the mean over its pixels that are not white. It includes the mean color of the whole object
    with the weight of 5 % of the cell, so that it is defined for a cell without such pixels.

    Args:
        rgb: Images [n, 3, s, s] in [0, 1] on white.
        side: Number of rows and of columns of the grid.
    """
    rgb = rgb.float()
    visible = ((1 - rgb).amax(1, keepdim=True) > WHITE_LEVEL / 255).float()
    area = visible.mean((2, 3), keepdim=True)
    overall = (rgb * visible).mean((2, 3), keepdim=True) / area.clamp(min=1e-6)
    overall = torch.where(area > 0, overall, 1.0)  # an image without an object is white
    sums, areas = (functional.adaptive_avg_pool2d(each, side) for each in (rgb * visible, visible))
    cells = (sums + _CELL_PRIOR * overall) / (areas + _CELL_PRIOR)
    return ((cells - 0.5) * _COLOR_SCALE).flatten(1)
