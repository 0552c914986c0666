"""Networks on top of the image encoder during its training, and the terms of its loss."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.model.unet import CAMERA_NUMBERS

_LABEL_SMOOTHING: Final = 0.1


class ImageEncoderHeads(nn.Module):
    """Networks on top of the image encoder, for training only: a contrastive projection and predictors."""

    def __init__(
        self,
        embed_dim: int,
        thumbnail_size: int,
        *,
        novel_views: bool = False,
        num_features: int = 0,
        num_kinds: int = 0,
    ) -> None:
        super().__init__()
        self.thumbnail_size = thumbnail_size
        self.contrast = nn.Linear(embed_dim, embed_dim // 2)
        self.thumbnail_head = nn.Sequential(
            nn.Linear(embed_dim, 2 * embed_dim), nn.GELU(), nn.Linear(2 * embed_dim, 3 * thumbnail_size**2)
        )
        self.novel_view_head: nn.Sequential | None = None
        if novel_views:
            self.novel_view_head = nn.Sequential(
                nn.Linear(embed_dim + CAMERA_NUMBERS, 2 * embed_dim),
                nn.GELU(),
                nn.Linear(2 * embed_dim, 2 * embed_dim),
                nn.GELU(),
                nn.Linear(2 * embed_dim, 3 * thumbnail_size**2),
            )
        self.feature_head = nn.Linear(embed_dim, num_features) if num_features else None
        self.kind_head = nn.Linear(embed_dim, num_kinds) if num_kinds else None

    def predict_thumbnails(self, embeddings: Tensor) -> Tensor:
        """Predict thumbnails [n, 3, thumbnail_size, thumbnail_size] of n views from the views' embeddings [n, c]."""
        thumbnails: Tensor = self.thumbnail_head(embeddings)
        return thumbnails.view(-1, 3, self.thumbnail_size, self.thumbnail_size)

    def predict_novel_views(self, embeddings: Tensor, cameras: Tensor) -> Tensor:
        """Predict thumbnails [n, 3, thumbnail_size, thumbnail_size] of other views of the embedded objects.

        Args:
            embeddings: Embeddings [n, c] of n views, with c numbers each.
            cameras: Camera labels [n, 16] of the views to predict.

        Raises:
            ValueError: The object was created without `novel_views=True`.
        """
        if self.novel_view_head is None:
            raise ValueError("these ImageEncoderHeads cannot predict novel views; create them with novel_views=True")
        thumbnails: Tensor = self.novel_view_head(torch.cat([embeddings, cameras], 1))
        return thumbnails.view(-1, 3, self.thumbnail_size, self.thumbnail_size)

    def predict_features(self, embeddings: Tensor) -> Tensor:
        """Predict the pooled features [n, k] of the pretrained network for n views from the views' embeddings [n, c].

        Raises:
            ValueError: The object was created without `num_features`.
        """
        if self.feature_head is None:
            raise ValueError("these ImageEncoderHeads cannot predict features; create them with num_features")
        features: Tensor = self.feature_head(embeddings)
        return features

    def predict_kinds(self, embeddings: Tensor) -> Tensor:
        """Predict logits [n, k] of the k kinds of objects for n views from the views' embeddings [n, c].

        Raises:
            ValueError: The object was created without `num_kinds`.
        """
        if self.kind_head is None:
            raise ValueError("these ImageEncoderHeads cannot predict kinds; create them with num_kinds")
        logits: Tensor = self.kind_head(embeddings)
        return logits


def feature_loss(predicted: Tensor, features: Tensor) -> Tensor:
    """Return the mean of 1 - cosine similarity, a scalar tensor, between predictions and features without their mean.

    Args:
        predicted: Predictions [n, k].
        features: Features [n, k] of the pretrained network. Their mean over the n views is subtracted first.
    """
    return (1 - functional.cosine_similarity(predicted, features - features.mean(0), dim=-1)).mean()


def kind_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """Return the cross entropy with label smoothing, a scalar tensor; 0 if no kind is known.

    Args:
        logits: Logits [n, k] of k kinds.
        kinds: Numbers [n] of the kinds. -1: the kind is not known, and the row is left out. If they are on the CPU, the
            host does not wait for the device.
    """
    if not bool((kinds >= 0).any()):
        return logits.sum() * 0
    return functional.cross_entropy(logits, kinds.to(logits.device), ignore_index=-1, label_smoothing=_LABEL_SMOOTHING)


def info_nce(first: Tensor, second: Tensor, objects: Tensor, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE loss, a scalar tensor. Row i of `first` and row i of `second` are a positive pair.

    Args:
        first: Embeddings [b, c] of one view of each object: b objects, c numbers per embedding.
        second: Embeddings [b, c] of another view of the same objects, in the same order.
        objects: Object numbers [b]. Rows with the same number are not used as negatives of each other.
        temperature: The cosine similarities are divided by this number.
    """
    first, second = functional.normalize(first, dim=-1), functional.normalize(second, dim=-1)
    logits = first @ second.T / temperature
    same_object = (objects[:, None] == objects[None]) & ~torch.eye(
        len(objects), dtype=torch.bool, device=objects.device
    )
    logits = logits.masked_fill(same_object, float("-inf"))
    target = torch.arange(len(objects), device=objects.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
