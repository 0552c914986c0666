"""`train.layers.compile`: layouts, kernels and checkpointing change time and memory, not what is computed."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.train import train_bench
from dataset.errors import UserError
from dataset.reading.filters import Filters
from tests.support.make_shards import make_shard_set
from tests.support.micro_batches import CPU, SHAPE, gradients
from tests.support.paths import ROOT
from tests.support.train_micro import micro_model, micro_run
from train.data.sampling import draw_branch
from train.data.training_set import open_training_set
from train.device import mixed_precision
from train.distributed.process_group import Ranks
from train.layers import compile as computing
from train.layers.compile import Compute, announcement, choose_compute, make_optimizer, prepare, uncompiled
from train.loop import loop
from train.loop.logging import open_log
from train.loop.loop import train
from train.loop.run_config import check_run
from train.model.multiview import save_model
from train.model.unet import build_unet, run_unet
from train.model.weight_averaging import update_average

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("use", ["none", "attention"])
@pytest.mark.parametrize("compute", [Compute(channels_last=True), Compute(checkpointing=True)], ids=["layout", "again"])
def test_loss_and_gradients_are_those_of_the_plain_network(compute, use):
    torch.manual_seed(0)
    unet = build_unet(SHAPE)
    plain, changed = gradients(unet, Compute(), use), gradients(unet, compute, use)
    assert changed[0] == pytest.approx(plain[0], rel=1e-5)
    for name, expected in plain[1].items():
        torch.testing.assert_close(changed[1][name], expected, rtol=1e-3, atol=1e-6, msg=name)


def test_the_reference_frame_changes_the_targets_prediction():
    """Stage 2's frame takes part in attention, although the loss leaves it out."""
    torch.manual_seed(0)
    unet = build_unet(SHAPE)
    assert gradients(unet, Compute(), "none")[0] != gradients(unet, Compute(), "attention")[0]


def test_the_fused_optimizer_takes_the_same_steps():
    weights = []
    for fused in (False, True):
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.constant_(layer.bias, 0.1)
        optimizer = make_optimizer(
            layer.parameters(), Compute(fused_optimizer=fused), lr=0.1, betas=(0.9, 0.999), weight_decay=0.01
        )
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(weights[0], weights[1])


def test_a_cpu_neither_compiles_nor_rounds():
    assert choose_compute(CPU) == Compute(fused_optimizer=True)
    with mixed_precision(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.integration
def test_the_benchmark_runs_at_micro_size(capsys):
    arguments = [
        "--shape",
        "micro",
        "--device",
        "cpu",
        "--objects",
        "2",
        "--grad-accum-steps",
        "2",
        "--steps",
        "1",
        "--matmul",
        "64",
        "--blocks",
        "lean",
    ]
    assert train_bench.main(arguments) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["blocks"] == "lean"
    assert line["views_per_s"] > 0
    assert line["share_of_peak"] > 0
    assert line["speedup_vs_eager"] > 0


def test_the_benchmark_needs_torch_diffusers_and_safetensors_alone():
    """A bare GPU machine has no more; what is imported is what this runs."""
    missing = "ray webdataset open_clip tyro pandas pyarrow tensorboard torchvision skimage imageio trimesh"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing.split()}))\n"
        "from benchmarks.train import train_bench; from train.model.unet import build_unet\n"
        "build_unet(train_bench.SHAPES['micro'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_choice_follows_device_and_option(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(computing.importlib.util, "find_spec", lambda name: name)
    assert choose_compute(gpu) == Compute("whole", channels_last=True, fused_optimizer=True, blocks="fused")
    assert choose_compute(gpu, blocks="diffusers").blocks == "diffusers"
    assert choose_compute(CPU, "whole").blocks == "diffusers"
    assert choose_compute(gpu, "none", checkpointing=True) == Compute("none", True, True, True)
    assert choose_compute(CPU, "blocks").compile == "blocks"
    assert choose_compute(gpu, split=True).compile == "levels"
    for whole in ("whole", "graphs"):
        with pytest.raises(UserError, match="give --compile levels"):
            choose_compute(gpu, whole, split=True)
    assert choose_compute(gpu, "graphs") == Compute("graphs", channels_last=True, fused_optimizer=True, blocks="fused")
    assert "CUDA graphs" in announcement(choose_compute(gpu, "graphs"), gpu)
    with pytest.raises(UserError, match="needs a GPU, but the device is cpu"):
        choose_compute(CPU, "graphs")
    assert "whole" in announcement(choose_compute(gpu), gpu)
    assert "float32, not compiled" in announcement(choose_compute(CPU), CPU)
    monkeypatch.setattr(computing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--compile none"):
        choose_compute(gpu)
    assert choose_compute(gpu, "none", blocks="lean") == Compute("none", True, True, blocks="lean")
    with pytest.raises(UserError, match="--blocks lean"):
        choose_compute(gpu, "none", blocks="fused")


def outputs(unet, frames):
    random = torch.Generator().manual_seed(frames)
    latents = torch.randn(frames, 4, 8, 8, generator=random)
    timesteps = torch.randint(1000, (frames,), generator=random)
    cameras, context = (torch.randn(*shape, generator=random) for shape in ((frames, 16), (frames, 1, 24)))
    return run_unet(unet, latents, timesteps, cameras, context, num_frames=frames)


@pytest.mark.integration
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_whole_network_is_one_graph_for_each_number_of_frames(compiler, checkpointing):
    """A break of the graph would be an error (fullgraph), another number of frames in evaluation compiles nothing."""
    torch.manual_seed(0)
    unet = build_unet(replace(SHAPE, widths=(32,), attention=(True,))).train()
    plain = {frames: outputs(unet, frames) for frames in (2, 5)}
    compute, names = Compute("whole", checkpointing=checkpointing), list(unet.state_dict())
    prepare(unet, compute)
    for frames in (2, 5, 2):
        with uncompiled(compute), torch.no_grad():
            outputs(unet, frames + 1)
        found = outputs(unet, frames)
        found.sum().backward()
        torch.testing.assert_close(found, plain[frames])
    assert compiler.graphs == 2
    assert list(unet.state_dict()) == names


# torch hides this warning where it asks for `.grad` itself, but cannot where warnings are errors
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_blocks_compile_each_by_itself_and_change_nothing(compiler):
    torch.manual_seed(0)
    unet = build_unet(replace(SHAPE, widths=(32,), attention=(True,)))
    plain = outputs(unet, 3)
    torch.testing.assert_close(outputs(prepare(unet, Compute("blocks")), 3), plain)
    blocks = len(list(computing._blocks(unet)))
    assert 3 <= compiler.graphs < blocks  # blocks of one shape share theirs


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_levels_compile_each_by_itself_without_their_hooks_and_change_nothing(compiler, checkpointing):
    torch.manual_seed(0)
    unet = build_unet(replace(SHAPE, widths=(32, 32), attention=(True, False))).train()
    plain, names, hooked = outputs(unet, 3), list(unet.state_dict()), []
    prepare(unet, compute := Compute("levels", checkpointing=checkpointing))
    for level in computing.levels(unet):
        level.register_forward_pre_hook(lambda module, args: hooked.append(torch.compiler.is_compiling()))
    found = outputs(unet, 3)
    torch.testing.assert_close(found, plain)
    found.sum().backward()
    assert compiler.graphs == len(hooked) == 5  # two levels down, the middle, two up
    assert not any(hooked)
    with uncompiled(compute), torch.no_grad():
        outputs(unet, 4)
    assert compiler.graphs == 5
    assert list(unet.state_dict()) == names


@pytest.mark.integration
@pytest.mark.usefixtures("quick_samples")
def test_a_run_of_both_branches_with_validation_and_images_compiles_two_graphs(compiler, tmp_path, capsys, monkeypatch):
    """In a GPU's layout too; its losses are those of a run that compiles nothing, its weights have the same names."""
    shards = make_shard_set(tmp_path / "set", 6, 32)
    save_model(micro_model(), tmp_path / "base")
    steps, losses, names = 4, [], []
    for choice in ("none", "whole"):
        run = micro_run(shards, tmp_path / choice, steps, stage=2, base=tmp_path / "base")
        recipe = replace(run.recipe, validation="on", validate_every=1, picture_every=2, average_decay=0.5)
        assert {draw_branch(run.seed, step, recipe.single_view_chance) for step in range(steps)} == {"single", "multi"}
        compute = Compute(choice, channels_last=choice == "whole", fused_optimizer=True)
        monkeypatch.setattr(loop, "choose_compute", lambda device, compiling, compute=compute, **_: compute)
        losses.append(train(replace(run, recipe=recipe)))
        saved = load_file(run.out / "unet" / "diffusion_pytorch_model.safetensors")
        last = load_file(run.out / "checkpoints" / f"step-{steps:09d}" / "unet.safetensors")
        assert saved.keys() == last.keys()
        names.append(last.keys())
        assert compiler.graphs == (0 if choice == "none" else 2)
    assert "compiled as a whole" in capsys.readouterr().err
    assert names[0] == names[1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("compiling", ["blocks", "levels", "whole"])
@pytest.mark.parametrize(("checkpointing", "blocks"), [(False, "diffusers"), (True, "lean"), (False, "fused")])
def test_compiled_gradients_are_close_on_a_gpu(compiling, checkpointing, blocks):
    torch._dynamo.reset()
    torch.manual_seed(0)
    device = torch.device("cuda")
    unet = build_unet(SHAPE).to(device)
    compute = replace(choose_compute(device, compiling, checkpointing=checkpointing), blocks=blocks)
    plain, compiled = (gradients(unet, how, "attention", device) for how in (Compute(), compute))
    assert compiled[0] == pytest.approx(plain[0], rel=2e-2)
    for name, expected in plain[1].items():
        scale = float(expected.abs().max()) + 1e-6
        torch.testing.assert_close(compiled[1][name] / scale, expected / scale, rtol=0.1, atol=0.1, msg=name)


@pytest.mark.parametrize("world", [1, 2])
def test_cuda_graphs_are_for_one_micro_batch_a_step(world, tmp_path):
    """Refused before anything is made."""
    run = micro_run(tmp_path, tmp_path / "run", 4)
    recipe = replace(run.recipe, stage1=replace(run.recipe.stage1, accumulation=2, objects=4))
    with pytest.raises(UserError, match="use --compile whole"):
        train(replace(run, recipe=recipe, compile="graphs"), Ranks(0, world))
    assert not run.out.exists()
    check_run(replace(run, recipe=recipe, compile="whole"), world)


@pytest.mark.gpu
@pytest.mark.usefixtures("quick_samples")
def test_replayed_graphs_train_as_launched_kernels_do(tmp_path):
    """Both branches, steps enough that each graph is recorded and replayed; images and validation between."""
    shards = make_shard_set(tmp_path / "set", 6, 32)
    save_model(micro_model(), tmp_path / "base")
    losses = []
    for choice in ("whole", "graphs"):
        torch._dynamo.reset()
        run = micro_run(shards, tmp_path / choice, 16, stage=2, base=tmp_path / "base")
        recipe = replace(run.recipe, validation="on", validate_every=5, picture_every=8, average_decay=0.5)
        losses.append(train(replace(run, recipe=recipe, device=torch.device("cuda"), compile=choice)))
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


@pytest.mark.gpu
@pytest.mark.usefixtures("quick_samples")
@pytest.mark.parametrize(
    ("use", "compiling"),
    [("attention", "whole"), ("attention", "none"), ("none", "whole"), ("channels", "whole"), ("attention", "graphs")],
)
def test_a_step_never_waits_for_the_gpu(use, compiling, tmp_path):
    """The loop's own step, with images to encode; the first steps, which load and compile, may."""
    device = torch.device("cuda")
    torch._dynamo.reset()
    shards, model = make_shard_set(tmp_path / "set", 6, 32), micro_model()
    save_model(model, tmp_path / "base")
    run = micro_run(shards, tmp_path / "run", 10, stage=2, base=tmp_path / "base")
    recipe = replace(run.recipe, reference=use, single_view_chance=0.0, average_decay=0.9, validation="on")
    run = replace(run, device=device, compile=compiling, recipe=recipe)
    setup = loop._set_up(run, open_training_set(run.shards, Filters()))
    assert setup.mfu_meter is not None
    meter, micro_batches = loop.Meter(), loop.noised_micro_batches(setup, 0, 6)
    for step in range(6):
        torch.cuda.set_sync_debug_mode("error" if step > 2 else "default")
        try:
            loop._step(setup, meter, micro_batches, step)
            update_average(setup.average, setup.model.unet, step, 0.9)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    reading = meter.read()
    assert all(result.loss == result.loss for result in reading.results)
    assert 0 < setup.mfu_meter.mfu(reading.flops, reading.seconds) < 1
    with open_log(tmp_path / "log", 0, None, {}) as log:
        loop._validate_and_sample(setup, log, 6, frozenset({"validation", "samples"}))
    assert (run.out / "samples" / "step-000000006.png").is_file()
