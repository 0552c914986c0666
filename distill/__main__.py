"""One picture in, a textured 3D model out: `python -m distill --image IMG --model MODEL --out OUT`."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch
import tyro
from PIL import Image

from dataset.errors import UserError, run_cli
from dataset.image import Prepared, prepare_image
from distill import mesh
from distill.guidance import model_guidance
from distill.loop import distill
from distill.reference import new_reference
from distill.results import write_results
from distill.schedule import PRESETS, DistillSettings
from distill.state import CHECKPOINT, Distillation, check_same
from train.ablation import see_reference
from train.find_model import model_folder
from train.model import DEMO_MODEL, ModelSpec, load_model, read_spec
from train.sample import pick_device

Preset = Literal["paper", "tiny"]
LARGEST_TINY: Final = 64  # image size up to which a model gets the preset `tiny`


@dataclass(frozen=True)
class Args:
    """Distil one picture into a textured mesh. The same command resumes an interrupted run.

    OUT gets mesh.glb, turntable.mp4, views.png, field.safetensors, config.json, input.png, previews/ and a checkpoint.
    """

    image: Path
    """The picture: best an RGBA cut-out of one object, seen from its front."""
    model: Path = DEMO_MODEL
    """A model folder, as training or train.convert writes it, a checkpoint file, or a Hub name."""
    out: Path | None = None
    """The output folder; default out/NAME for the picture NAME.png."""
    preset: Preset | None = None
    """Default: tiny for models of 64-pixel pictures, paper for larger ones."""
    steps: int | None = None
    """Number of steps; all schedules stretch with it. Default: the preset's."""
    seed: int = 0
    """Everything random follows from it."""
    elevation_deg: float = 15.0
    """How far from above the picture was taken; 15 is the middle of the training views' -10 to 40."""
    guidance_scale: float | None = None
    """Classifier-free guidance. Default: the model's."""
    reference_weight: float = 0.0
    """Weight of an L2 loss on colour and mask at the reference view (0: none, as in the paper)."""
    remove_background: bool = False
    """Cut the object out with rembg (an optional extra)."""
    device: str = "auto"
    """auto (a GPU when there is one), cpu, cuda, cuda:1, ..."""
    dry_run: bool = False
    """Print the resolved settings as JSON and stop."""


def main(args: Args) -> int:
    """Run the command line."""
    out = args.out or Path("out") / args.image.stem
    named = str(args.model)
    args = replace(args, model=model_folder(args.model))
    spec = read_spec(args.model)
    preset: Preset = args.preset or ("tiny" if spec.image_size <= LARGEST_TINY else "paper")
    settings = replace(
        PRESETS[preset],
        seed=args.seed,
        steps=PRESETS[preset].steps if args.steps is None else args.steps,
        reference_weight=args.reference_weight,
    )
    prepared = prepare_image(args.image, spec.image_size, remove_background=args.remove_background)
    asked = _asked(args, spec, preset, settings, prepared)
    where = {"image": str(args.image), "model": named, "out": str(out)}
    if args.dry_run:
        print(json.dumps({**where, **asked}, indent=2))
        return 0
    check_same(out / CHECKPOINT, asked)
    for notice in prepared.notices:
        print(f"note: {notice}")
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(prepared.rgba).save(out / "input.png")
    _write_json(out / "config.json", {**where, **asked})
    state = _distill(args, settings, asked, prepared, out)
    report = write_results(state, settings, mesh.PRESETS[preset], out)
    _write_json(out / "config.json", {**where, **asked, "mesh": asdict(report)})
    print(f"{out / 'mesh.glb'}: {report.faces} faces; also turntable.mp4, views.png and field.safetensors in {out}")
    return 0


def _asked(
    args: Args, spec: ModelSpec, preset: Preset, settings: DistillSettings, prepared: Prepared
) -> dict[str, Any]:
    """All that determines the result, as JSON."""
    if not -90 <= args.elevation_deg <= 90:
        raise UserError(f"--elevation-deg is {args.elevation_deg}; it lies between -90 and 90")
    return {
        "image_sha256": hashlib.sha256(prepared.rgba.tobytes()).hexdigest(),
        "model_sha256": _folder_digest(args.model),
        "preset": preset,
        "elevation_deg": args.elevation_deg,
        "guidance_scale": spec.guidance_scale if args.guidance_scale is None else args.guidance_scale,
        "settings": asdict(settings),
    }


def _folder_digest(folder: Path) -> str:
    """SHA-256 of the digests of a model's files: another model under the same name must not continue a run."""
    digest = hashlib.sha256()
    for part in ("unet", "vae", "image_tower", "image_encoder"):
        for path in sorted((folder / part).glob("*")):
            with path.open("rb") as file:
                digest.update(f"{part}/{path.name}".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _distill(
    args: Args, settings: DistillSettings, asked: dict[str, Any], prepared: Prepared, out: Path
) -> Distillation:
    """Load the model and run the loop in `out`."""
    device = pick_device(args.device)
    reference = None
    if settings.reference_weight:
        reference = new_reference(prepared.rgba, args.elevation_deg, settings.cameras.half_frame, device)
    model = load_model(args.model, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    rgb = torch.from_numpy(prepared.rgb).permute(2, 0, 1)[None].to(device)
    model = see_reference(model, rgb)
    tokens = model.embed_image(rgb)
    guidance = model_guidance(model, tokens, args.elevation_deg, asked["guidance_scale"])
    guidance = replace(guidance, reference=reference)
    try:
        return distill(settings, guidance, out, asked=asked, device=device)
    except KeyboardInterrupt:
        print(f"\nstopped; {out / CHECKPOINT} holds the state and the same command goes on from there")
        raise


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    run_cli(lambda: main(tyro.cli(Args, prog="python -m distill")))
