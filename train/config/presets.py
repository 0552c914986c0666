"""Training presets, which set the default values of the training options.

The preset `paper` follows appendix B of the Isotropic3D paper. Where the appendix gives no value or contradictory
values, a comment marks the value as our choice. Recipe, data, seed and initial model determine the result of a run. The
recipe is saved in the run's config.json.
"""

import math
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Final, Literal

import tyro

from dataset.errors import UserError
from dataset.images.prepare import OBJECT_FILL
from dataset.io.options import HiddenDefault
from dataset.reading.damage import MAX_DAMAGED_SHARE
from dataset.reading.filters import TEST_SHARE, VALIDATION_SHARE
from train.config.schedules import PresetOnly, Schedule, require_positive
from train.config.unet_shapes import EMBEDDED_UNET, TINY_UNET
from train.data.sampling import count_pairs
from train.model.image_encoder import ImageEncoderSpec, OpenClipEncoder, SmallEncoder
from train.model.reference import ReferenceMode
from train.model.timm_encoder import TimmEncoder
from train.model.unet import UNetShape

PresetName = Literal["paper", "tiny"]
FREE: Final = {"resume": True}  # metadata of a field that may change when a run resumes


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Sizes and training settings of a small AutoencoderKL.

    `widths` contains the number of channels at each level. Each level after the first halves height and width.
    """

    latent_channels: int
    widths: tuple[int, ...]
    blocks_per_level: int
    kl_weight: float  # weight of the mean KL divergence per latent value; the mean absolute color error has weight 1
    schedule: Schedule
    decoder_schedule: Schedule | None = None  # further training of the decoder alone (`train.components.decoder`)


@dataclass(frozen=True)
class ImageEncoderRecipe:
    """Settings for training a small image encoder; `train.components.image_encoder` describes the terms of the loss."""

    temperature: float
    contrast_weight: float  # weight of the contrastive loss between objects
    thumbnail_size: int  # side length of the predicted thumbnails in pixels
    reconstruction_weight: float
    novel_view_weight: float  # weight of predicting another view of the object from its camera; 0: off
    schedule: Schedule
    mirror: bool = False  # mirror half of the objects, with mirrored cameras
    pretrained: bool = False  # start from ImageNet weights (`train.components.backbone`)
    augmented: bool = False  # show the encoder augmented views (`train.components.augment`)
    feature_weight: float = 0.0  # weight of predicting the features of the pretrained network; 0: off
    pretrained_lr_factor: float = 0.05  # of the learning rate of the pretrained weights; 0: they are not trained
    kind_weight: float = 0.0  # weight of predicting the kind of the object, where it is known; 0: off
    drawings: int = 0  # labelled drawings per step whose kinds are predicted too, if there are any
    drawing_weight: float = 0.0  # of their term, relative to `kind_weight`


@dataclass(frozen=True)
class Recipe:
    """Training settings that do not depend on the machine or the data. The option --preset sets their defaults."""

    # A field is a command-line option of both stages unless it is `PresetOnly`. It is saved under its name in the run's
    # config.json, and a run resumes only with the same value unless the field is marked as `FREE`.
    name: Annotated[PresetName, tyro.conf.arg(name="preset")]
    """Set of default values for all options. paper: the values of App. B, to fine-tune a converted MVDream
    (--init-from). tiny: values to train all parts from scratch on 64-pixel images."""
    image_size: PresetOnly[int]
    tower: PresetOnly[ImageEncoderSpec]
    guidance_scale: PresetOnly[float]  # default for sampling from the trained model
    stage1: PresetOnly[Schedule]
    stage2: PresetOnly[Schedule]
    # Used only for training from scratch. None: the initial model provides these components.
    unet: PresetOnly[UNetShape | None]
    autoencoder: PresetOnly[AutoencoderRecipe | None]
    tower_training: PresetOnly[ImageEncoderRecipe | None]
    num_views: PresetOnly[int] = 4  # orthogonal target views of the multi-view branch
    single_view_chance: PresetOnly[float] = 0.3  # 4.1: 30% single-view branch, 70% multi-view
    drop_chance: PresetOnly[float] = 0.1  # of the image token, for classifier-free guidance. Our choice
    betas: PresetOnly[tuple[float, float]] = (0.9, 0.999)
    weight_decay: PresetOnly[float] = 1e-2
    clip_norm: PresetOnly[float] = 1.0  # our choice: the paper gives none
    min_snr_gamma: HiddenDefault[float | None] = None
    """Weight the loss by Min-SNR with this gamma (usually 5). Default: the unweighted loss of Eq. 5 and 6."""
    velocity_cap: HiddenDefault[float | None] = None
    """Weight the loss by min(1 / alpha_bar, CAP) (try 20), which emphasizes high-noise timesteps. Default:
    unweighted."""
    average_decay: HiddenDefault[float | None] = None
    """Decay of an exponential moving average of the weights (try 0.9999). The finished model, the samples and the
    validation use the averaged weights. Default: no averaging."""
    activation_checkpointing: bool = field(default=False, metadata=FREE)
    """Recompute activations in the backward pass, which needs less GPU memory and about a third more compute."""
    cameras: HiddenDefault[Literal["relative", "absolute"] | None] = None
    """Camera labels. relative: to the reference, as in the paper. absolute: for objects that all face the same way.
    Default: those of the initial model, or relative when training from scratch."""
    reference: PresetOnly[ReferenceMode] = "attention"  # how stage 2 uses the reference's latent (`--reference-mode`)
    # Fraction of the steps of stage 2 without the reference's latent (`--reference-drop-chance`). The paper gives none.
    reference_drop_chance: PresetOnly[float] = 0.0
    # Largest noise added to the embeddings (`train.data.sampling.add_embedding_noise`). The paper adds none.
    embedding_noise: PresetOnly[float] = 0.0
    validation: Literal["auto", "on", "off"] = "auto"
    """Hold out 5% of the objects (chosen by a hash of the uid) and measure the loss on them. auto: hold out none if the
    set has fewer than 20 objects. off: train on the validation objects too, but not on the test objects
    (--test-share)."""
    test_share: float = TEST_SHARE
    """Fraction of the objects (chosen by a hash of the uid) reserved for `python -m train.evaluate` and never trained
    on; 0 reserves none. Use the same value for all components of a model. Sets of fewer than 20 objects reserve
    none."""
    items_per_object: Annotated[int, tyro.conf.arg(name="repeats-per-object")] = 1
    """Number of times each object is used per epoch, each time with another reference view. With a larger number, a
    step reads less data."""
    sample_posterior: bool = False
    """Sample latents from the VAE's posterior, as Stable Diffusion did, instead of using the posterior's mean."""
    readers: Annotated[int, tyro.conf.arg(name="num-workers")] = field(default=2, metadata=FREE)
    """Number of threads that read and decode views."""
    max_damaged_share: Annotated[float, tyro.conf.arg(name="max-corrupt-fraction")] = field(
        default=MAX_DAMAGED_SHARE, metadata=FREE
    )
    """Largest fraction of corrupt objects to tolerate. Corrupt objects are replaced by others; above this fraction,
    training stops with an error."""
    checkpoint_every: int = field(default=500, metadata=FREE)
    """Number of steps between checkpoints. Only the last two checkpoints are kept."""
    keep_checkpoints: PresetOnly[int] = field(default=2, metadata=FREE)
    archive_every: HiddenDefault[Annotated[int | None, tyro.conf.arg(name="keep-every")]] = field(
        default=None, metadata=FREE
    )
    """Also keep every checkpoint whose step is a multiple of this number. Default: keep only the last two."""
    picture_every: Annotated[int, tyro.conf.arg(name="sample-every")] = field(default=500, metadata=FREE)
    """Number of steps between sample sheets. A sheet is an image in samples/ that shows reference, ground truth, and
    samples at guidance scale 3 and at the model's own scale."""
    validate_every: int = field(default=500, metadata=FREE)
    """Number of steps between validations. A validation measures the loss on held-out objects, by timestep."""
    log_every: int = field(default=20, metadata=FREE)
    """Number of steps between log lines and TensorBoard entries."""
    stop_at_bad_loss: Annotated[bool, tyro.conf.arg(name="fail-on-nan")] = field(default=False, metadata=FREE)
    """Stop at the first non-finite loss. By default, an update with a non-finite loss or gradient is skipped, and ten
    skipped updates in a row stop the run."""

    def __post_init__(self) -> None:
        """Raise UserError, naming the command-line option, when the value of a field is out of range."""
        require_positive(
            {
                "--num-workers": self.readers,
                "--checkpoint-every": self.checkpoint_every,
                "--keep-every": self.archive_every,
                "--sample-every": self.picture_every,
                "--validate-every": self.validate_every,
                "--log-every": self.log_every,
            }
        )
        if self.min_snr_gamma is not None and not 0 < self.min_snr_gamma < math.inf:
            raise UserError(f"--min-snr-gamma is {self.min_snr_gamma}; it must be a finite number above 0 (try 5)")
        if self.velocity_cap is not None and not 1 < self.velocity_cap < math.inf:
            raise UserError(f"--velocity-cap is {self.velocity_cap}; it must be a finite number above 1 (try 20)")
        if self.min_snr_gamma is not None and self.velocity_cap is not None:
            raise UserError("--min-snr-gamma and --velocity-cap both weight the loss by timestep; use only one")
        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise UserError(f"--average-decay is {self.average_decay}; it must be above 0 and below 1 (try 0.9999)")
        if not 0 <= self.embedding_noise < math.inf:
            raise UserError(f"embedding_noise is {self.embedding_noise}; it must be a finite number, at least 0")
        if not 0 <= self.reference_drop_chance < 1:
            raise UserError(
                f"--reference-drop-chance is {self.reference_drop_chance}; it must be at least 0 and below 1 (try 0.3)"
            )
        if not 0 <= self.test_share < 1 - VALIDATION_SHARE:
            raise UserError(
                f"--test-share is {self.test_share}; it must be at least 0 and below {1 - VALIDATION_SHARE:g} (try "
                f"0.05), because {VALIDATION_SHARE:.0%} of the objects are used for validation"
            )
        pairs = count_pairs(self.num_views)
        if not 1 <= self.items_per_object <= pairs:
            raise UserError(
                f"--repeats-per-object is {self.items_per_object}; it must be between 1 and {pairs}, the number of "
                f"ways to combine a reference view with {self.num_views} target views"
            )
        if not 0 <= self.max_damaged_share < 1:
            raise UserError(
                f"--max-corrupt-fraction is {self.max_damaged_share}; it must be at least 0 and below 1 (try 0.001)"
            )


def free_to_change(recipe: Recipe) -> frozenset[str]:
    """Return the names of the fields of `recipe` whose values may differ when a run resumes."""
    return frozenset(field.name for field in fields(recipe) if field.metadata.get("resume"))


PAPER: Final = Recipe(
    name="paper",
    image_size=256,
    tower=OpenClipEncoder("ViT-H-14", "laion2b_s32b_b79k"),
    # App. B says "10, the same as during training", but only sampling uses guidance; training only drops the token.
    guidance_scale=10.0,
    # 768 and 128 are numbers of objects, as in MVDream (the paper could also mean images), with 4 views each in the
    # multi-view branch and one in the single-view branch. 768 = per GPU x GPUs x 4 accumulated.
    stage1=Schedule(steps=50_000, objects=768, accumulation=4, peak_lr=1e-4, decay="constant", warmup_steps=10_000),
    # "Other settings are consistent with the first stage" makes the warm-up twice as long as the stage; it is cut to
    # a tenth of the stage. Section 4.1 says "about 1 day", App. B "about 5 hours"; the only number of steps is 5k.
    stage2=Schedule(steps=5_000, objects=128, accumulation=1, peak_lr=5e-5, decay="linear", warmup_steps=10_000),
    unet=None,
    autoencoder=None,
    tower_training=None,
)

_TINY_AUTOENCODER: Final = AutoencoderRecipe(
    latent_channels=8,
    widths=(32, 64, 64),
    blocks_per_level=1,
    kl_weight=1e-4,
    schedule=Schedule(steps=2_000, objects=8, accumulation=1, peak_lr=2e-3, decay="linear", warmup_steps=20),
)
_TINY_IMAGE_ENCODER: Final = ImageEncoderRecipe(
    temperature=0.1,
    contrast_weight=1.0,
    thumbnail_size=16,
    reconstruction_weight=10.0,
    novel_view_weight=0.0,
    schedule=Schedule(steps=300, objects=16, accumulation=1, peak_lr=5e-4, decay="linear", warmup_steps=20),
)

TINY: Final = Recipe(
    name="tiny",
    image_size=64,
    tower=SmallEncoder(
        embed_dim=256, image_size=64, patch_size=8, width=192, layers=6, head_width=32, object_fill=OBJECT_FILL
    ),
    guidance_scale=3.0,
    stage1=Schedule(steps=2_000, objects=4, accumulation=1, peak_lr=4e-4, decay="constant", warmup_steps=100),
    stage2=Schedule(steps=400, objects=4, accumulation=1, peak_lr=2e-4, decay="linear", warmup_steps=40),
    unet=TINY_UNET,
    reference_drop_chance=0.3,  # so that the model stays as good without the reference's latent as after stage 1
    autoencoder=_TINY_AUTOENCODER,
    tower_training=_TINY_IMAGE_ENCODER,
)

# The bundled model, which `train.tiny_model` trains on a GPU: larger images and networks, more steps, larger batches.
EMBEDDED: Final = replace(
    TINY,
    image_size=128,
    tower=TimmEncoder(
        "tf_efficientnet_lite0",
        embed_dim=304,
        image_size=160,
        object_fill=OBJECT_FILL,
        hidden_width=768,
        color_grid=4,
    ),
    unet=EMBEDDED_UNET,
    cameras="absolute",  # the objects of the bundled model face the same way
    autoencoder=replace(
        _TINY_AUTOENCODER,
        latent_channels=16,
        widths=(32, 64, 96, 128),
        schedule=Schedule(steps=7_200, objects=64, accumulation=1, peak_lr=1e-3, decay="linear", warmup_steps=100),
        decoder_schedule=Schedule(
            steps=8_000, objects=64, accumulation=1, peak_lr=5e-4, decay="linear", warmup_steps=100
        ),
    ),
    tower_training=replace(
        _TINY_IMAGE_ENCODER,
        contrast_weight=0.0,  # with it, objects with similar embeddings no longer look alike (docs/LOG.md)
        thumbnail_size=32,
        novel_view_weight=10.0,
        mirror=True,
        pretrained=True,
        augmented=True,
        feature_weight=2.0,
        pretrained_lr_factor=0.0,  # no worse than a low rate on photographs, and the features keep their meaning
        kind_weight=2.0,
        drawings=32,
        drawing_weight=0.5,  # drawings get the right kind more often, photographs as often as before (docs/LOG.md)
        schedule=Schedule(steps=3_000, objects=128, accumulation=1, peak_lr=1e-3, decay="linear", warmup_steps=100),
    ),
    stage1=Schedule(steps=11_000, objects=256, accumulation=1, peak_lr=8e-4, decay="constant", warmup_steps=500),
    stage2=Schedule(steps=2_500, objects=256, accumulation=1, peak_lr=5e-4, decay="linear", warmup_steps=200),
    # Embeddings of photographs are farther from those of renders than these from each other (docs/LOG.md)
    embedding_noise=0.5,
    velocity_cap=20.0,  # at 1,200 steps: 22 % less error at timesteps 750-999, 15 % more below 250 (docs/LOG.md)
    average_decay=0.999,
    checkpoint_every=1_000,
    validate_every=2_000,
    picture_every=2_000,
    readers=4,
)

PRESETS: Final[dict[PresetName, Recipe]] = {"paper": PAPER, "tiny": TINY}
