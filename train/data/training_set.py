"""Open the set on which a run trains: a shard set, which contains images, or a latent set."""

import logging

from dataset.errors import UserError
from dataset.format.latents import encode_on
from dataset.format.shards import SET_NAME
from dataset.io.files import exists, url_to_fs
from dataset.reading.epoch_order import Order
from dataset.reading.filters import Filters, select
from dataset.reading.latent_set import LatentSet, open_views
from dataset.reading.shard_set import ShardSet

TrainingSet = ShardSet | LatentSet

logger = logging.getLogger(__name__)


def open_training_set(url: str, filters: Filters, world: int = 1) -> TrainingSet:
    """Open a shard set or a latent set without the objects that the filters exclude.

    Args:
        url: Folder or fsspec URL of the set.
        filters: Conditions that the objects must satisfy.
        world: Number of ranks that share the objects.

    Raises:
        UserError: The set is missing, unfinished or damaged, cannot be filtered, or has fewer objects than ranks.
    """
    opened: TrainingSet = open_views(url)
    if isinstance(opened, LatentSet):
        logger.info(
            "%s is a latent set (has latents.json): training does not run the VAE and the image encoder; the "
            "references and true views in samples/ are decoded from the latents",
            url,
        )
    if filters != Filters():
        fs, root = url_to_fs(url)
        if isinstance(opened, LatentSet) and not exists(fs, f"{root}/{SET_NAME}"):
            raise UserError(
                f"{url} has no manifest and outcome tables, which filters need; {encode_on(url)}, which copies the "
                "tables from the image set"
            )
        selection = select(url, filters)
        logger.info("%s", selection)
        opened = opened.narrowed(selection.kept)
    require_enough_objects(opened, world)
    return opened


def require_enough_objects(shards: TrainingSet, world: int) -> None:
    """Raise UserError when the set has no objects, or fewer objects than there are ranks (`world`)."""
    _ = Order(shards.samples_per_shard, 0, 0, world).per_epoch


def require_images(shards: TrainingSet, what: str) -> ShardSet:
    """Return the set if it contains images; raise UserError if it contains latents.

    `what` names the network that cannot be trained on latents, for the error message.
    """
    if isinstance(shards, LatentSet):
        raise UserError(
            f"{what} cannot be trained from {shards.url}, which contains latents; give --shards "
            "an image set, or --init-from the model that encoded the latents"
        )
    return shards
