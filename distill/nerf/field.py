"""The neural field: density, albedo and analytic normals of points, from a hash grid and two small MLPs.

World coordinates are Blender's (z up). The scene is the ball of `radius` about the origin; density is zero outside it.
Albedo is display-referred sRGB in [0, 1] and is compared with images without conversion.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.errors import UserError
from dataset.io.files import write_file_atomic
from distill.nerf.backend import has_kernels
from distill.nerf.field_query import FieldWeights, query_points
from distill.nerf.hash_grid import HashGrid
from distill.nerf.settings import FieldSettings, HashGridSettings

if TYPE_CHECKING:
    from distill.nerf.kernels.field import FieldShape, MlpWeights

_FORMAT = "isotropic3d-field-1"
_LEAST_ALBEDO = 1e-3  # of a field with a texture


class Samples(NamedTuple):
    """Properties of a scene at n points: density [n] per world unit, albedo [n, 3], outward unit normal [n, 3]."""

    density: Tensor
    albedo: Tensor
    normal: Tensor


class Scene(Protocol):
    """A scene that can be rendered: its density and colors at world points [n, 3] within `radius` of the origin."""

    @property
    def radius(self) -> float: ...
    def density(self, x: Tensor) -> Tensor: ...  # [n, 3] -> [n]
    def query(self, x: Tensor) -> Samples: ...  # [n, 3] -> n samples


class Field(nn.Module):
    """A neural `Scene`: a hash grid and two small MLPs, whose parameters can be trained."""

    def __init__(self, settings: FieldSettings | None = None, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.settings = settings or FieldSettings()
        self.grid = HashGrid(self.settings.grid, self.settings.radius, generator)
        self.density_mlp = _Mlp(self.grid.width, self.settings.hidden_width, 1, generator)
        self.albedo_mlp = _Mlp(self.grid.width, self.settings.hidden_width, 3, generator)
        self.texture: HashGrid | None = None
        """Finer hash grid that changes the albedo only: the sum of its levels is added before the sigmoid."""

    @property
    def radius(self) -> float:
        """Radius, in world units, of the ball around the origin that contains the scene."""
        return self.settings.radius

    def density(self, x: Tensor) -> Tensor:
        """Return the density [n] per world unit at world points `x` [n, 3]; 0 outside the ball."""
        if has_kernels(x.device.type) and not torch.is_grad_enabled():
            from distill.nerf.kernels.field import decode_density

            return decode_density(self.grid.look_up(x, jacobian=False), x, *self.kernel_arguments())
        return self._density_of(x, self.grid(x))

    def albedo(self, x: Tensor) -> Tensor:
        """Return the albedo [n, 3] in [0, 1] at world points `x` [n, 3]."""
        return self._textured(x, torch.sigmoid(self.albedo_mlp(self.grid(x))))

    def density_and_normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the density [n] and the outward unit normal [n, 3] at world points `x` [n, 3].

        The normal is the negative gradient of the density, normalized to unit length.
        """
        return self._density_and_normal(x, *self.grid.with_jacobian(x))

    def query(self, x: Tensor) -> Samples:
        """Return density, albedo and normal at world points `x` [n, 3] with a single look-up of the hash grid."""
        if has_kernels(x.device.type):
            from distill.nerf.kernels.field import decode

            samples = Samples(*decode(self.grid.look_up(x, jacobian=True), x, *self.kernel_arguments()))
        elif x.device.type == "cpu":
            samples = Samples(*query_points(x, self._weights(), self.settings))
        else:
            samples = Samples(*self.query_features(x, *self.grid.with_jacobian(x)))
        return samples._replace(albedo=self._textured(x, samples.albedo))

    def _textured(self, x: Tensor, albedo: Tensor) -> Tensor:
        """Return the albedo [n, 3] at points `x` [n, 3] with the texture, given the albedo without it."""
        return (
            albedo if self.texture is None else torch.sigmoid(albedo_logits(albedo) + texture_logits(self.texture, x))
        )

    def _weights(self) -> FieldWeights:
        networks = (self.density_mlp, self.albedo_mlp)
        layers = (layer.weight for network in networks for layer in (network.hidden, network.output))
        return FieldWeights(self.grid.table, *layers)

    def kernel_arguments(self) -> tuple["MlpWeights", "FieldShape"]:
        """Return the weights of the two MLPs and the constants of the field, as arguments of the Triton kernels."""
        from distill.nerf.kernels.field import FieldShape, MlpWeights

        networks = (self.density_mlp, self.albedo_mlp)
        weights = MlpWeights(*(layer.weight for network in networks for layer in (network.hidden, network.output)))
        return weights, FieldShape(self.radius, self.settings.blob_density, self.settings.blob_radius)

    def _density_of(self, x: Tensor, features: Tensor) -> Tensor:
        return self._activate(x, self.density_mlp(features)[:, 0])

    def query_features(self, x: Tensor, features: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return density [n], albedo [n, 3] and normal [n, 3], computed in plain torch from features of the hash grid.

        Args:
            x: World points [n, 3].
            features: The w hash grid features of each point, [n, w].
            jacobian: Derivatives [n, w, 3] of the features with respect to the points.
        """
        density, normal = self._density_and_normal(x, features, jacobian)
        return density, torch.sigmoid(self.albedo_mlp(features)), normal

    def _density_and_normal(self, x: Tensor, features: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        raw, raw_by_features = self.density_mlp.with_gradient(features)
        # Softplus is increasing, so the gradients of density and raw value have the same direction.
        gradient = (raw_by_features[..., None] * jacobian).sum(1) + self._bias_gradient(x)
        return self._activate(x, raw), -F.normalize(gradient, dim=-1)

    def _activate(self, x: Tensor, raw: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(x, dim=-1)
        bias = self.settings.blob_density * (1 - distance / self.settings.blob_radius)
        density: Tensor = F.softplus(raw + bias) * (distance <= self.radius)
        return density

    def _bias_gradient(self, x: Tensor) -> Tensor:
        return -self.settings.blob_density / self.settings.blob_radius * F.normalize(x, dim=-1)

    def save(self, path: Path) -> None:
        """Write the parameters to a safetensors file, with the settings of the field in its header, atomically."""
        header = {"format": _FORMAT, "settings": json.dumps(asdict(self.settings))}
        if self.texture is not None:
            header["texture"] = json.dumps(asdict(self.texture.settings))
        write_tensors(path, self.state_dict(), header)


def albedo_logits(albedo: Tensor) -> Tensor:
    """Return the values [n, 3] whose sigmoid is a given albedo [n, 3], which is first clamped to [0.001, 0.999]."""
    return torch.logit(albedo, _LEAST_ALBEDO)


def texture_logits(texture: HashGrid, x: Tensor) -> Tensor:
    """Return the values [n, 3] that a texture adds to the logits of the albedo at world points `x` [n, 3]."""
    logits: Tensor = texture(x).view(len(x), texture.settings.levels, 3).sum(1)
    return logits


def load_field(path: Path, device: torch.device | str = "cpu") -> Field:
    """Load a field from a file written by `Field.save`.

    Args:
        path: The field file, such as field.safetensors in a run folder.
        device: Device of the field.

    Raises:
        UserError: the file is missing, damaged, or not a field file.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != _FORMAT:
        raise UserError(
            f"{path} is not a field file of `make distill` (its header lacks {_FORMAT}); give a field.safetensors "
            "file from a run folder"
        )
    values = json.loads(header["settings"])
    loaded = Field(FieldSettings(**(values | {"grid": HashGridSettings(**values["grid"])})))
    if "texture" in header:
        loaded.texture = HashGrid(HashGridSettings(**json.loads(header["texture"])), loaded.radius)
    loaded.load_state_dict(tensors)
    return loaded.to(device).eval()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file atomically.

    Args:
        path: The file. Missing parent folders are created.
        tensors: Tensors of any shape, by name.
        header: Strings to store in the header of the file, by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file_atomic(path, save(contiguous, dict(header)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the strings in the header of a safetensors file, both by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_header(path: Path) -> dict[str, str]:
    """Read the strings in the header of a safetensors file, by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _opened(path) as file:
        header: dict[str, str] = file.metadata() or {}
        return header


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file. Raises UserError if the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"the file {path} does not exist; create it with `make distill`") from error
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a complete safetensors file ({error}); delete the file and run the distillation again"
        ) from error


class _Mlp(nn.Module):
    """A linear layer, ReLU and another linear layer, without biases, as in the released code."""

    def __init__(self, inputs: int, hidden: int, outputs: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden, bias=False)
        self.output = nn.Linear(hidden, outputs, bias=False)
        for layer in (self.hidden, self.output):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.output(torch.relu(self.hidden(features)))
        return outputs

    def with_gradient(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first output [n] of the MLP and the derivative [n, c] of this output with respect to the features.

        The derivative is computed in closed form, so it can be differentiated with respect to the weights without
        double backward. The matrix products are transposed because the hash grid stores its features with points as the
        last axis.

        Args:
            features: The c hash grid features of each of n points, [n, c].
        """
        before = self.hidden.weight @ features.T  # [hidden, n]
        raw = self.output.weight[0] @ torch.relu(before)
        slope = self.output.weight[0][:, None] * (before > 0)
        return raw, (self.hidden.weight.T @ slope).T
