"""The mutations that `tests.support.mutations` tries: maths, conventions, order of the data, and files."""

from typing import Final

from tests.support.mutations import Mutation

_CAMERA: Final = "tests/dataset/test_camera.py"
_FILES: Final = "tests/dataset/io/test_files.py"
_LOSS: Final = "tests/train/loop/test_loss.py"
_PREPARE: Final = "tests/dataset/images/test_prepare.py"
_SAMPLING: Final = "tests/train/data/test_sampling.py"
_LOADER: Final = "tests/train/data/test_loader.py"
_SCHEDULE: Final = "tests/distill/sds/test_schedule.py"
_DOWNSCALE: Final = "tests/dataset/copy/test_downscale.py"
_OBJAVERSE: Final = "tests/render/sources/test_objaverse.py"
_SAMPLE: Final = "tests/train/test_sample.py"
_CHECKPOINT: Final = "tests/train/loop/test_checkpoint.py"
_HASH_GRID: Final = "tests/distill/nerf/test_hash_grid.py"
_LOOP: Final = "tests/distill/sds/test_loop.py"
_MESH: Final = "tests/distill/mesh/test_formats.py tests/distill/mesh/test_export.py"
_GUIDANCE: Final = "tests/distill/sds/test_guidance.py"

MUTATIONS: Final = (
    # dataset
    Mutation("dataset/camera.py", "-cos_e * cos_a, sin_e], -1)", "cos_e * cos_a, sin_e], -1)", _CAMERA),
    Mutation("dataset/camera.py", "= back * radius", "= -back * radius", _CAMERA),
    Mutation("dataset/camera.py", "[[focal, 0.0, resolution / 2]", "[[focal, 0.0, (resolution - 1) / 2]", _CAMERA),
    Mutation(
        "dataset/camera.py",
        "np.asarray(azimuth_deg, np.float64) - np.asarray(ref_azimuth_deg",
        "np.asarray(azimuth_deg, np.float64) + np.asarray(ref_azimuth_deg",
        _CAMERA,
    ),
    Mutation("dataset/camera.py", "horizontal < 1e-9", "horizontal < -1", _CAMERA),
    Mutation("dataset/reading/filters.py", '"big"', '"little"', "tests/dataset/reading/test_filters.py"),
    Mutation(
        "dataset/reading/filters.py",
        "place >= 1 - test_share",
        "place < validation_share + test_share",
        "tests/dataset/reading/test_filters.py",
    ),
    Mutation(
        "dataset/reading/filters.py",
        "return self.asset.license or UNKNOWN",
        'return self.asset.license or ""',
        "tests/dataset/reading/test_filters.py",
    ),
    Mutation(
        "dataset/reading/epoch_order.py",
        "order[rank:kept:world]",
        "order[rank * (kept // world) : (rank + 1) * (kept // world)]",
        "tests/dataset/reading/test_epoch_order.py",
    ),
    Mutation(
        "dataset/reading/epoch_order.py",
        "now.per_epoch + done // now.world",
        "now.per_epoch + -(-done // now.world)",
        "tests/dataset/reading/test_epoch_order.py",
    ),
    Mutation(
        "dataset/reading/epoch_order.py",
        "SeedSequence((seed, epoch)))",
        "SeedSequence((seed + epoch,)))",
        "tests/dataset/reading/test_epoch_order.py",
    ),
    Mutation("dataset/io/files.py", 'f"{path}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}"', "path", _FILES),
    Mutation("dataset/io/files.py", "    _fsync(temporary)\n", "", _FILES),
    Mutation("dataset/io/files.py", "allow_nan=False", "allow_nan=True", _FILES),
    Mutation("dataset/io/lock.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH", "tests/dataset/io/test_lock.py"),
    Mutation(
        "dataset/io/lock.py",
        'float(holder["time"]) > LEASE_S',
        'float(holder["time"]) > 10 * LEASE_S',
        "tests/dataset/io/test_lock.py",
    ),
    Mutation("dataset/io/read_ahead.py", "> ahead", ">= ahead", "tests/dataset/io/test_read_ahead.py"),
    Mutation(
        "dataset/format/tar.py",
        "bytes(-size % BLOCK)",
        "bytes(BLOCK - size % BLOCK)",
        "tests/dataset/format/test_tar.py",
    ),
    Mutation("dataset/images/prepare.py", "    canvas[..., :3] *= canvas[..., 3:]\n", "", _PREPARE),
    Mutation("dataset/images/prepare.py", "np.clip(resized[..., :3], 0, alpha)", "resized[..., :3]", _PREPARE),
    Mutation(
        "dataset/images/decode.py",
        "ImageOps.exif_transpose(rgba)",
        "rgba",
        "tests/dataset/images/test_decode.py",
    ),
    # render
    Mutation("render/rigs/cameras.py", "sorted(hdris)[", "list(hdris)[", "tests/render/rigs/test_cameras.py"),
    Mutation("render/rigs/isotropic3d.toml", "[-10, 40]", "[-10, 30]", "tests/render/rigs/test_cameras.py"),
    Mutation("render/sources/licenses.py", '"CC-BY-NC-4.0"', '"CC-BY-4.0"', "tests/render/sources/test_licenses.py"),
    Mutation(
        "render/output/shard_assembler.py",
        "remaining -= len(results)",
        "remaining -= 1",
        "tests/render/output/test_shard_assembler.py",
    ),
    # train
    Mutation(
        "train/model/weight_averaging.py",
        "(1 + done) / (10 + done)",
        "(1 + step) / (10 + step)",
        "tests/train/model/test_weight_averaging.py",
    ),
    Mutation(
        "train/model/weight_averaging.py",
        "1 - decay_at(step, decay)",
        "decay_at(step, decay)",
        "tests/train/model/test_weight_averaging.py",
    ),
    Mutation("train/loop/loss.py", "snr.clamp(max=gamma) / snr", "snr.clamp(max=gamma)", _LOSS),
    Mutation("train/loop/loss.py", "(1 / alphas_cumprod", "(1 / alphas_cumprod.sqrt()", _LOSS),
    Mutation("train/config/schedules.py", "(step + 1) / warmup", "step / warmup", "tests/train/config/test_presets.py"),
    Mutation("train/data/sampling.py", "rng.integers(1, VIEWS_PER_SET)", "rng.integers(VIEWS_PER_SET)", _SAMPLING),
    Mutation("train/data/sampling.py", "(1, 0), value=0)", "(1, 0), value=1)", _SAMPLING),
    Mutation("train/data/sampling.py", "< drop_chance", ">= drop_chance", _SAMPLING),
    Mutation("train/data/sampling.py", "< chance", ">= chance", _SAMPLING),
    Mutation(
        "train/model/noise_schedule.py",
        "dtype=torch.float64) ** 2",
        "dtype=torch.float64) ** 2.1",
        "tests/train/model/test_multiview.py -k noise_schedule",
    ),
    Mutation(
        "train/data/loader.py", "(number - self.first_step * self.accumulation)", "(number - self.first_step)", _LOADER
    ),
    Mutation("train/data/loader.py", "self.item(step * self.accumulation)", "self.item(step)", _LOADER),
    # distill
    Mutation(
        "distill/nerf/occupancy.py",
        "ema_decay=settings.occupancy_decay",
        "ema_decay=1.0",
        "tests/distill/nerf/test_occupancy.py",
    ),
    Mutation(
        "distill/nerf/occupancy.py",
        "[:, None] * settings.step_length(self.radius)",
        "[:, None]",
        "tests/distill/nerf/test_occupancy.py",
    ),
    Mutation(
        "distill/nerf/compositing.py",
        "(transmittance - weights) * gain",
        "transmittance * gain",
        "tests/distill/nerf/test_compositing.py",
    ),
    Mutation(
        "distill/nerf/settings.py", "(resolution + 1) ** 3", "resolution**3", "tests/distill/nerf/test_hash_grid.py"
    ),
    Mutation(
        "distill/nerf/shading.py",
        ".sum(-1).clamp(min=0).square()",
        ".sum(-1).clamp(max=0).square()",
        "tests/distill/nerf/test_shading.py",
    ),
    Mutation("distill/sds/guidance.py", "latents - (1 - alpha_bar) *", "latents - alpha_bar *", _GUIDANCE),
    Mutation("distill/sds/guidance.py", "axes = (1, 2, 3, 4)", "axes = (2, 3, 4)", _GUIDANCE),
    Mutation(
        "distill/sds/loop.py",
        "settings.sds_weight * losses",
        "losses",
        "tests/distill/sds/test_checkpoint.py",
    ),
    Mutation(
        "distill/sds/schedule.py",
        "step / (settings.anneal_fraction * settings.steps)",
        "step / settings.steps",
        _SCHEDULE,
    ),
    Mutation(
        "distill/sds/schedule.py",
        "* min(1.0, step / (settings.coarse_fraction",
        "* min(1.0, step / (settings.anneal_fraction",
        _SCHEDULE,
    ),
    Mutation(
        "distill/sds/reference_loss.py", 'mode="area"', 'mode="nearest"', "tests/distill/sds/test_reference_loss.py"
    ),
    Mutation("distill/mesh/bake.py", "(1.0 - uv[..., 1])", "uv[..., 1]", "tests/distill/mesh/test_export.py"),
    Mutation("distill/mesh/formats.py", '[(name, "<f4")', '[(name, ">f4")', "tests/distill/mesh/test_formats.py"),
    Mutation(
        "distill/mesh/formats.py",
        "charts.source[charts.faces]], -1) + 1",
        "charts.source[charts.faces]], -1)",
        "tests/distill/mesh/test_formats.py",
    ),
    # a second round
    Mutation("dataset/copy/downscale.py", "(2 * weight + area) // (2 * area)", "weight // area", _DOWNSCALE),
    Mutation("dataset/copy/downscale.py", "value / factor for value in row", "value for value in row", _DOWNSCALE),
    Mutation("dataset/images/prepare.py", "exact=True", "exact=False", _PREPARE),
    Mutation("render/sources/objaverse.py", "CODES.get(code, code) or", "code or", _OBJAVERSE),
    Mutation("train/model/ddim.py", "set_alpha_to_one=False", "set_alpha_to_one=True", _SAMPLE),
    Mutation("train/model/ddim.py", "offset = 1 if", "offset = 0 if", _SAMPLE),
    Mutation("train/loop/checkpoint.py", "[: -keep.last]", "[: -keep.last - 1]", _CHECKPOINT),
    Mutation("train/loop/checkpoint.py", "_steps_of(old) % keep.every", "_steps_of(old) % 3", _CHECKPOINT),
    Mutation("train/loop/checkpoint.py", "            _sync(temporary / name)\n", "            pass\n", _CHECKPOINT),
    Mutation("train/data/latents.py", ".float() / 2).exp()", ".float()).exp()", "tests/train/data/test_latents.py"),
    Mutation(
        "train/model/image_encoder.py",
        "(resized - self.mean.float())",
        "resized",
        "tests/train/model/test_image_encoder.py",
    ),
    Mutation("distill/nerf/hash_grid.py", "& (table_size - 1)", "% (table_size - 1)", _HASH_GRID),
    Mutation("distill/sds/guidance.py", "torch.randint(low, high + 1,", "torch.randint(low, high,", _GUIDANCE),
    Mutation("distill/sds/checkpoint.py", 'int(header["step"])', 'int(header["step"]) + 1', f"{_LOOP} -k interrupted"),
    Mutation(
        "distill/sds/checkpoint.py",
        '_nested(_under("optimizer.", tensors))',
        "{}",
        f"{_LOOP} -k interrupted",
    ),
    Mutation("distill/mesh/isosurface.py", "keep = volume >=", "keep = abs(volume) >=", _MESH),
    Mutation("distill/mesh/isosurface.py", "(vertices - 1.0) * spacing", "vertices * spacing", _MESH),
    Mutation("distill/mesh/formats.py", "vectors[..., 2], -vectors[..., 1]", "vectors[..., 2], vectors[..., 1]", _MESH),
    Mutation("distill/mesh/formats.py", "uv=charts.uv,", "uv=charts.uv * [1, -1] + [0, 1],", _MESH),
    Mutation(
        "render/blender/scene.py",
        "tuple(-scale * center)",
        "tuple(scale * center)",
        "tests/render/blender/test_scene.py -k longest_side",
    ),
)
