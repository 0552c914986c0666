"""Perceptual hashes, and clusters of near-duplicates compared with all pairs."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from dataset.curate.clusters import MAX_BITS, MAX_COLOR, find_clusters
from dataset.curate.hashes import HASH_BYTES, appearance, hamming, perceptual_hash, unpack_hashes

Hashes = NDArray[np.uint64]


def random_hashes(count: int, seed: int = 0) -> tuple[Hashes, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**64, (count, HASH_BYTES // 8), np.uint64), rng.uniform(-0.1, 0.1, (count, 5))


def flipped(hashes: Hashes, bits: int, seed: int = 1) -> Hashes:
    """Copies with `bits` random bits flipped in each."""
    flat = np.unpackbits(hashes.view(np.uint8), axis=1)
    order = np.argsort(np.random.default_rng(seed).random(flat.shape), axis=1)[:, :bits]
    np.put_along_axis(flat, order, 1 - np.take_along_axis(flat, order, 1), 1)
    return np.packbits(flat, axis=1).view(np.uint64)


def naive(hashes: Hashes, appearances: NDArray[np.float64]) -> list[int]:
    first: list[int] = []
    for i in range(len(hashes)):
        leader = i
        for j in range(i):
            difference = np.abs(appearances[i] - appearances[j])
            alike = difference[0] <= 0.05 and difference[1:].max() <= MAX_COLOR
            if first[j] == j and alike and hamming(hashes[i], hashes[j]) <= MAX_BITS:
                leader = j
                break
        first.append(leader)
    return first


def test_hamming_counts_bits() -> None:
    hashes, _ = random_hashes(50)
    expected = np.unpackbits((hashes[:25] ^ hashes[25:]).view(np.uint8), axis=1).sum(1)
    np.testing.assert_array_equal(hamming(hashes[:25], hashes[25:]), expected)
    assert hamming(hashes[0], ~hashes[:1]).tolist() == [1024]


@pytest.mark.parametrize("bits", [0, 1, 10, MAX_BITS])
def test_pairs_within_the_limit_are_always_found(bits: int) -> None:
    hashes, appearances = random_hashes(300)
    both = np.concatenate([hashes, flipped(hashes, bits)])
    first = find_clusters(both, np.tile(appearances, (2, 1)))
    np.testing.assert_array_equal(first, np.tile(np.arange(300), 2))


def test_pairs_beyond_a_limit_are_not_near_duplicates() -> None:
    hashes, appearances = random_hashes(40)
    alone = list(range(80))
    assert (
        find_clusters(np.concatenate([hashes, flipped(hashes, MAX_BITS + 1)]), np.tile(appearances, (2, 1))).tolist()
        == alone
    )
    for column, step in ((0, 0.051), (3, 0.061)):
        moved = appearances.copy()
        moved[:, column] += step
        assert find_clusters(np.tile(hashes, (2, 1)), np.concatenate([appearances, moved])).tolist() == alone


def test_clusters_equal_those_of_all_pairs() -> None:
    """Chains, in which neighbors are near-duplicates and the ends are not, included."""
    hashes, appearances = random_hashes(12)
    chain = [hashes]
    for step in range(6):
        chain.append(flipped(chain[-1], 12, seed=step))
    order = np.random.default_rng(2).permutation(84)
    many, look = np.concatenate(chain)[order], np.tile(appearances, (7, 1))[order]
    first = find_clusters(many, look)
    assert first.tolist() == naive(many, look)
    assert 12 < len(set(first.tolist())) < 84
    assert (first[first] == first).all()


def test_no_objects_and_one_object() -> None:
    assert find_clusters(np.empty((0, 16), np.uint64), np.empty((0, 5))).tolist() == []
    assert find_clusters(*random_hashes(1)).tolist() == [0]


def test_200_000_objects_take_seconds() -> None:
    """Half are near-duplicates of the other half, and 5,000 have the same hash."""
    hashes, appearances = random_hashes(97_500)
    copies = hashes ^ np.uint64(1 << 17)  # one of 64 bits
    many = np.concatenate([hashes, copies, np.repeat(hashes[:1], 5_000, axis=0)])
    look = np.concatenate([appearances, appearances, np.repeat(appearances[:1], 5_000, axis=0)])
    start = time.process_time()
    first = find_clusters(many, look)
    assert time.process_time() - start < 60  # 3 s on an idle core
    np.testing.assert_array_equal(first[97_500:195_000], np.arange(97_500))
    assert (first[195_000:] == 0).all()


def blob(views: int = 16, noise: float = 0.0, brightness: float = 1.0, wide: float = 12.0) -> NDArray[np.float32]:
    """Views [f, 64, 64, 4] of an ellipse that turns, red above and green below."""
    y, x = np.mgrid[:64, :64] - 31.5
    rng, made = np.random.default_rng(3), []
    for i in range(views):
        width = wide + 8 * np.cos(np.pi * i / 8) + noise * rng.standard_normal()
        alpha = np.clip(20 * (1 - np.hypot(x / width, (y + 3) / 22)), 0, 1)
        color = np.stack([np.where(y < 0, 0.8, 0.1), np.where(y < 0, 0.2, 0.7), np.full_like(x, 0.2)], -1)
        made.append(np.concatenate([brightness * color * alpha[..., None], alpha[..., None]], -1))
    return np.array(made, np.float32)


def test_the_hash_is_of_the_shape_and_the_appearance_is_of_the_color() -> None:
    plain, dark, noisy, other = (
        perceptual_hash(views) for views in (blob(), blob(brightness=0.4), blob(noise=0.1), blob(wide=25.0))
    )
    assert len(plain) == HASH_BYTES
    assert plain == dark
    hashes = unpack_hashes(plain + noisy + other)
    assert 0 < hamming(hashes[0], hashes[1]) <= MAX_BITS < hamming(hashes[0], hashes[2])
    area, red_above, blue_above, red_below, blue_below = appearance(blob())
    assert area == pytest.approx(np.log(blob()[..., 3].mean()))
    assert [red_above, blue_above] == pytest.approx([0.6 / 1.2, -0.3 / 1.2], abs=1e-5)
    assert [red_below, blue_below] == pytest.approx([-0.6, -0.2], abs=1e-5)
    assert appearance(blob(brightness=0.4)) == pytest.approx(appearance(blob()), abs=1e-5)


def test_invisible_objects_and_small_images_have_hashes() -> None:
    nothing = np.zeros((16, 64, 64, 4), np.float32)
    assert perceptual_hash(nothing) == bytes(HASH_BYTES)
    assert appearance(nothing) == (-9, 0, 0, 0, 0)
    assert len(perceptual_hash(np.ones((16, 4, 4, 4), np.float32))) == HASH_BYTES
