"""Measure how fast a shard set is encoded: `python -m benchmarks.train.encode_bench`, minutes on one GPU.

VAE and ViT-H-14 have the paper's size and random weights. The shard set contains a few textured objects at 256 pixels
many times under different names. It is encoded by the function of `python -m train.encode`, with compiled networks.
The benchmark then measures the same networks on images that are on the GPU already, and profiles the encoding of a part
of the set for the share of time in which the GPU is idle. The last line is JSON.

`--toy` encodes small images with small networks on a CPU, to check the script. `benchmarks.train.frozen_networks`
measures the networks alone, by batch size and precision.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.train.frozen_networks import TOY_WIDTHS, VAE_WIDTHS, VIT, count_flops
from benchmarks.train.train_bench import kind_of_kernel
from dataset.errors import run_cli
from dataset.format.latents import Embedded, LatentFormat
from dataset.format.schema import ALL_VIEWS, dump_meta, meta_name, parse_meta
from dataset.format.shards import shard_name, write_index, write_shard
from dataset.images.prepare import decode_webp, encode_webp
from dataset.io.files import url_to_fs
from dataset.reading.shard_set import ShardSet
from tests.support.make_shards import make_sample
from train.convert.convert import LATENT_SCALE
from train.data.images import on_white
from train.encode.encode_set import default_batch_size, default_num_workers, encode, plan_format
from train.encode.encoder import Encoder, full_batch, objects_per_batch, speed_up
from train.encode.pipeline import EncodeTimes, encode_objects
from train.loop.flops import MATMUL_SIDE, matmul_peak, seconds_of
from train.model.image_encoder import ImageEncoderSpec, OpenClipEncoder, SmallEncoder, build_image_encoder
from train.model.multiview import ModelSpec

ALL_OBJECTS_VIEWS: Final = 25_600_000  # views of 800,000 objects
DIFFERENT: Final = 2  # objects that are ray-cast: a box and an ellipsoid
PROFILED_SHARDS: Final = 3
PURE_BATCHES: Final = 20
READING_HOLDS: Final = 0.05  # share of the time spent waiting for images above which reading limits the speed

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """Sizes of networks and images."""

    image_size: int
    widths: tuple[int, ...]
    image_encoder: ImageEncoderSpec
    matmul: int
    pure_batches: int


PAPER: Final = Size(256, VAE_WIDTHS, OpenClipEncoder(VIT, None), MATMUL_SIDE, PURE_BATCHES)
TOY: Final = Size(32, TOY_WIDTHS, SmallEncoder(32, 32, 16, 32, 2, 16), 64, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode a synthetic set, and print the measurements."""
    options = _options(arguments)
    size, device = (TOY, torch.device("cpu")) if options.toy else (PAPER, torch.device("cuda"))
    phases = Phases()
    peak = phases.timed("matmul peak", lambda: matmul_peak(device, size.matmul))
    encoder = phases.timed("networks", lambda: random_encoder(size, device))
    flops = network_flops(encoder)
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        folder = Path(name)
        shards = phases.timed(
            "shard set",
            lambda: write_set(folder / "set", options.objects, options.objects_per_shard, size.image_size),
        )
        form = phases.timed("format", lambda: plan_format(encoder, shards, logvar=True, embedded=options.embedded))
        batch_size = options.batch_size or default_batch_size(device, size.image_size, options.objects_per_shard)
        views = len(shards) * len(ALL_VIEWS)
        encoder = speed_up(encoder, batch_size, views, options.compile, form.embedded)
        run = Run(encoder, form, batch_size, options.num_workers, folder)
        compile_s = phases.timed("first shard, compiles", lambda: run.encode(shards, 1)).seconds
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        times = phases.timed("measured encoding", lambda: run.encode(shards))
        memory = memory_gib(device)
        pure = phases.timed("networks alone", lambda: pure_speeds(run, shards, size.pure_batches))
        line = {
            "views_per_s": round(times.views_per_s, 1),
            "share_of_peak": round(times.views_per_s * sum(flops.values()) / peak, 4),
            "gpu_idle_share": None,
            "idle_vs_pure": round(1 - times.views_per_s / pure["all"], 4),
            "pure_views_per_s": round(pure["all"], 1),
            "networks": {
                name: {"views_per_s": round(pure[name], 1), "share_of_peak": round(pure[name] * count / peak, 4)}
                for name, count in flops.items()
            },
            "gflop_per_view": {name: round(count / 1e9, 1) for name, count in flops.items()},
            "waited_for_images": round(times.images_share, 4),
            "held_by": "reading" if times.images_share > READING_HOLDS else "encoding",
            "views": times.views,
            "batch": full_batch(batch_size, len(ALL_VIEWS)),
            "num_workers": options.num_workers,
            "compile": options.compile,
            "compile_s": round(compile_s, 1),
            "hours_25.6M_views": round(ALL_OBJECTS_VIEWS / times.views_per_s / 3600, 2),
            **memory,
            "matmul_peak_tflops": round(peak / 1e12, 1),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "torch": torch.__version__,
        }
        print(json.dumps(line), flush=True)  # the profile adds one value
        if device.type == "cuda":
            line["gpu_idle_share"] = phases.timed("profile", lambda: profiled_idle_share(run, shards, options.kernels))
    line["seconds"] = phases.seconds
    print(json.dumps(line))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1024, help="number of objects to encode, with 32 views each")
    parser.add_argument("--objects-per-shard", type=int, default=64, help="number of objects in a shard")
    parser.add_argument(
        "--batch-size", type=int, default=None, help="views encoded at once (default: as `python -m train.encode`)"
    )
    parser.add_argument(
        "--num-workers",
        type=int,
        default=default_num_workers(),
        help="threads that read and decode images (default: as `python -m train.encode`)",
    )
    parser.add_argument("--compile", choices=("on", "off"), default="on", help="whether to compile the networks")
    parser.add_argument("--embedded", choices=get_args(Embedded), default="all", help="views whose embedding is stored")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=None,
        help="folder for temporary files, 2 MB per object (default: the system's)",
    )
    parser.add_argument("--kernels", type=int, default=12, help="number of kernels to print, slowest first")
    parser.add_argument("--toy", action="store_true", help="encode small images on a CPU, to check the script")
    return parser.parse_args(arguments)


@dataclass
class Phases:
    """Prints and collects the seconds of each part of the benchmark."""

    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, work: Callable[[], T]) -> T:
        """Return the result of `work`."""
        start = time.perf_counter()
        result = work()
        self.seconds[name] = round(time.perf_counter() - start, 1)
        print(f"{name}: {self.seconds[name]:.1f} s", flush=True)
        return result


@dataclass
class Run:
    """Encodes shards of one set with one encoder, each time into a new folder."""

    encoder: Encoder
    form: LatentFormat
    batch_size: int
    num_workers: int
    folder: Path
    count: int = 0

    def encode(self, shards: ShardSet, number: int | None = None) -> EncodeTimes:
        """Encode the first `number` shards, or all."""
        index = replace(shards.index, shards=shards.index.shards[:number])
        some = ShardSet(shards.url, index)
        form = replace(self.form, pictures=tuple(shard.sha256 for shard in index.shards))
        self.count += 1
        times = EncodeTimes()
        encode(
            some,
            str(self.folder / f"latents{self.count}"),
            self.encoder,
            form,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            times=times,
        )
        return times


def random_encoder(size: Size, device: torch.device) -> Encoder:
    """Return VAE and image encoder with random weights, in float32 as `load_encoder` returns them."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    levels = len(size.widths)
    with torch.device(device):
        vae: Any = AutoencoderKL(
            block_out_channels=size.widths,
            layers_per_block=2,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        )
        image_encoder = build_image_encoder(size.image_encoder)
    for part in (vae, image_encoder):
        nn.Module.to(part.eval().requires_grad_(False), device)
    spec = ModelSpec(size.image_size, size.image_size >> (levels - 1), LATENT_SCALE, "relative", 10.0)
    return Encoder(vae, image_encoder, spec, device)


def network_flops(encoder: Encoder) -> dict[str, float]:
    """Count the operations of encoding one view, in float32 before `speed_up`."""
    size = encoder.spec.image_size
    image = torch.zeros(1, 3, size, size, device=encoder.device)
    vae: Any = encoder.vae
    return {"vae": count_flops(vae.encode, image), "image_encoder": count_flops(encoder.image_encoder, image)}


def write_set(folder: Path, objects: int, per_shard: int, image_size: int) -> ShardSet:
    """Write a shard set that contains the views of a few objects many times, under different names."""
    fs, root = url_to_fs(folder)
    rng = np.random.default_rng(0)
    different = [textured(make_sample("x", number, image_size), rng) for number in range(min(DIFFERENT, objects))]
    num_shards = -(-objects // per_shard)
    for shard in range(num_shards):
        numbers = range(objects)[shard * per_shard : (shard + 1) * per_shard]
        samples = ((f"object-{i:06d}", renamed(different[i % len(different)], f"object-{i:06d}")) for i in numbers)
        write_shard(fs, root, shard_name(shard), samples)
    write_index(fs, root, num_shards=num_shards, objects_per_shard=per_shard)
    return ShardSet(folder)


def textured(members: Mapping[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """Add a random texture to the objects' pixels, so that decoding takes as long as for rendered images."""
    return {
        name: encode_webp(_with_texture(decode_webp(data, name), rng)) if name.endswith(".webp") else data
        for name, data in members.items()
    }


def _with_texture(rgba: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add smooth and fine noise to the colors of the visible pixels of a view [h, w, 4]."""
    side = rgba.shape[0]
    smooth = Image.fromarray(rng.integers(0, 256, (side // 4, side // 4), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    noise = (np.asarray(smooth, np.int16) - 128) // 6 + rng.integers(-4, 5, (side, side), np.int16)
    result = rgba.copy()
    result[..., :3] = np.clip(rgba[..., :3] + noise[..., None], 0, 255) * (rgba[..., 3:] > 0)
    return result


def renamed(members: Mapping[str, bytes], uid: str) -> dict[str, bytes]:
    """Return the members of the object "x" as those of the object `uid`."""
    result = {uid + name.removeprefix("x"): data for name, data in members.items()}
    name = meta_name(uid)
    return {**result, name: dump_meta(replace(parse_meta(members[meta_name("x")], "x"), uid=uid))}


def pure_speeds(run: Run, shards: ShardSet, batches: int) -> dict[str, float]:
    """Return the views per second of the networks, together and each alone, on images that are on the device."""
    encoder, objects = run.encoder, objects_per_batch(run.batch_size)
    views = torch.from_numpy(shards.views(0, 0, ALL_VIEWS)).to(encoder.device)
    images = on_white(views.repeat(objects, 1, 1, 1))[: full_batch(run.batch_size, len(ALL_VIEWS))]
    embedded = images[: encoder.compiled_embedded]
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        "all": (
            objects * len(ALL_VIEWS),
            lambda: encode_objects(encoder, run.form, [views] * objects, run.batch_size),
        ),
        "vae": (len(images), lambda: encoder.latents(images)),
        "image_encoder": (len(embedded), lambda: encoder.embeddings(embedded)),
    }
    speeds = {}
    for name, (count, call) in calls.items():
        seconds_of(call, encoder.device)
        seconds = seconds_of(lambda: [call() for _ in range(batches)], encoder.device)  # noqa: B023
        speeds[name] = count * batches / seconds
    return speeds


def profiled_idle_share(run: Run, shards: ShardSet, kernels: int) -> float | None:
    """Encode some shards. Return the share of the time from the first to the last kernel in which the GPU is idle.

    Return None if the profiler saw no kernel. The shares of the kinds of kernels, and of the `kernels` slowest kernels,
    are printed.
    """
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        run.encode(shards, PROFILED_SHARDS)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in trace.events() or ()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    print_shares({event.key: event.self_device_time_total for event in trace.key_averages()}, kernels)
    return round(idle_share(spans), 4) if spans else None


def print_shares(microseconds: Mapping[str, float], most: int) -> None:
    """Print the share of the GPU time by kind of kernel, then of the `most` slowest kernels, by their names."""
    total = max(sum(microseconds.values()), 1e-9)
    kinds: dict[str, float] = {}
    for name, value in microseconds.items():
        kinds[kind_of_kernel(name)] = kinds.get(kind_of_kernel(name), 0) + value
    slowest = [sorted(part.items(), key=lambda item: -item[1]) for part in (kinds, microseconds)]
    for name, value in [*slowest[0], *slowest[1][:most]]:
        print(f"{value / total:6.1%} {name[:110]}")


def idle_share(spans: Iterable[tuple[float, float]]) -> float:
    """Return the share of time, 0 to 1, between the first start and the last end in which no span (start, end) lies."""
    ordered = sorted(spans)
    first = covered = ordered[0][0]
    busy = 0.0
    for start, end in ordered:
        busy += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    return 1 - busy / max(covered - first, 1e-9)


def memory_gib(device: torch.device) -> dict[str, float]:
    """Return the highest GPU memory since the last reset."""
    if device.type != "cuda":
        return {}
    allocated, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    return {"peak_gib": round(allocated / 2**30, 2), "reserved_gib": round(reserved / 2**30, 2)}


if __name__ == "__main__":
    run_cli(main)
