"""`python -m train.known`: which objects and images it uses, what it writes, and what it says."""

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.errors import UserError
from dataset.images.prepare import prepare_image
from dataset.reading.shard_set import ShardSet
from tests.support.known_table import table_of_white
from tests.support.make_shards import make_shard_set
from tests.support.train_micro import CPU, MICRO, micro_model
from train import known as command
from train import sample
from train.components.component import seeded
from train.components.known_classifier import known_classes
from train.components.known_images import embed_objects
from train.components.known_objects import PHOTOS, VALIDATION
from train.data.kinds import kind_of
from train.data.splits import assign_splits, split_set
from train.export import ExportArgs, export
from train.known import (
    Calibration,
    Sources,
    add_known,
    make_known,
    parse,
    read_calibration,
    run,
)
from train.model.image_encoder import build_image_encoder
from train.model.multiview import assemble, read_image_encoder, save_model
from train.model.recognition.int8 import round_rows
from train.model.recognition.recognize import unknown_warnings
from train.model.recognition.table import CORRECTION, KnownObjects, read_known, write_known
from train.model.timm_encoder import TimmEncoder
from train.sample import SampleArgs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """60 objects, of which some are for validation and testing."""
    return make_shard_set(tmp_path_factory.mktemp("known") / "set", 60, 32, objects_per_shard=10)


def draw(path: Path, color: int) -> str:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[8:32, 8:32] = (color, 255 - color, 40, 255)
    Image.fromarray(pixels).save(path)
    return path.name


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder as `python -m examples.photos` writes it."""
    folder = tmp_path_factory.mktemp("photos")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "known", "style"))
        for i, known in enumerate(("yes", "no", "near", "yes", "no", "no")):
            writer.writerow((draw(folder / f"{i}.png", 40 * i), "thing", known, "photo"))
    return folder


def test_the_table_and_the_report_agree(objects, base, photos, tmp_path, capsys):
    labels = tmp_path / "kinds.csv"
    labels.write_text("uid,label\n" + "\n".join(f"synthetic-{i:04d},kind{i % 3}" for i in range(20)))
    other = tmp_path / "other"
    other.mkdir()
    draw(other / "a.png", 200)
    arguments = [str(objects), "--model", str(base), "--photos", str(photos), "--unknown", str(other)]
    run(parse([*arguments, "--labels", str(labels), "--views", "2", "--device", "cpu"]))
    printed, progress = capsys.readouterr()
    known = read_known(base)
    groups = known.statistics["groups"]
    assert groups[PHOTOS]["images"] == 2
    assert groups["unknown"]["images"] == 4  # three of the photographs, one of --unknown
    splits = Counter(split for shard in assign_splits(ShardSet(objects)) for split in shard)
    assert min(splits.values()) > 0
    assert len(splits) == 3
    assert known.statistics["training_objects"] == splits["train"]
    assert groups[VALIDATION]["images"] == 2 * splits["validation"]
    assert known.statistics["training_objects"] * 2 == len(known.kind_numbers)
    assert set(known.kinds) == {"kind0", "kind1", "kind2"}
    assert -1 in known.kind_numbers.tolist()
    for name, row in groups.items():
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert f"{row['warned']} of {row['images']} warned" in line
    assert re.search(r"wrote .*known: \d+ embeddings, 0\.\d+ MB", printed)
    for what in ("training objects", "validation objects", "photographs", "unknown images"):
        assert what in progress
    assert json.loads((base / "known" / "known.json").read_text())["threshold"] == known.threshold


def test_an_object_is_seen_from_evenly_spaced_views(objects, base):
    shards, image_encoder = ShardSet(objects), read_image_encoder(base)
    found = embed_objects(shards, torch.no_grad()(image_encoder), 4, "objects")
    assert found.embeddings.shape == (60 * 4, 32)
    assert found.uids[:5] == (*["synthetic-0000"] * 4, "synthetic-0001")
    rgba = torch.from_numpy(shards.views(0, 1, [("random", i) for i in (1, 5, 9, 13)])).float() / 255
    white = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).permute(0, 3, 1, 2)
    with torch.no_grad():
        torch.testing.assert_close(found.embeddings[4:8], image_encoder(white), atol=1e-5, rtol=1e-5)


def test_the_kind_of_an_object():
    assert kind_of("procedural-teddybear-000012", {}) == "teddybear"
    assert kind_of("procedural-cat-000001", {"procedural-cat-000001": "pet"}) == "pet"
    assert kind_of("furniture-x-procedural-cat-000001", {}) is None
    assert kind_of("a", {"a": "sofa"}) == "sofa"


def test_without_validation_objects_photographs_are_needed(base, photos, capsys):
    shards = ShardSet(make_shard_set(photos.parent / "few", 3, 32))
    with pytest.raises(UserError, match=r"no images of known kinds .* --photos"):
        make_known(base, Sources(shards, None, Calibration()), CPU)
    add_known(base, Sources(shards, None, read_calibration(photos, (), None)), CPU)
    assert set(read_known(base).statistics["groups"]) == {PHOTOS, "unknown"}
    assert "embeddings will not be corrected" in capsys.readouterr().err
    add_known(base, Sources(shards, None, Calibration()), CPU)
    assert read_known(base) is None
    assert "no table of known objects" in capsys.readouterr().err
    run(parse([shards.url, "--model", str(base), "--photos", str(photos), "--device", "cpu"]))
    assert read_known(base).statistics["training_objects"] == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na.png,cat\n", "lacks the column known"),
        ("file,known\n", "no rows"),
        (None, "cannot be read"),
        ("file,known\na.png,near\nb.png,Yes\n", "line 3: known is 'Yes'; it must be yes, no or near"),
        ("file,known\na.png,yes\n../b.png,no\n", r"line 3: \.\./b\.png is outside of the folder"),
        ("file,known\n../b.png,yes\n", r"line 2: \.\./b\.png is outside of the folder"),
    ],
)
def test_a_folder_without_proper_labels_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(UserError, match=rf"labels\.csv.* {message}"):
        read_calibration(tmp_path, (), None)


@pytest.mark.parametrize(
    "options", [["--views", "0"], ["--views", "17"], ["--max-false-share", "1.5"], ["--test-share", "0.97"]]
)
def test_options_out_of_range_are_refused(options, objects, base):
    with pytest.raises(UserError, match=options[0]):
        run(parse([str(objects), "--model", str(base), *options]))


def test_a_model_without_an_image_encoder_is_refused(objects, base, tmp_path):
    (tmp_path / "model.json").write_text((base / "model.json").read_text())
    with pytest.raises(UserError, match="no image encoder"):
        run(parse([str(objects), "--model", str(tmp_path)]))


def test_sampling_warns_first_and_goes_on(base, tmp_path, capsys):
    image = tmp_path / draw(tmp_path / "a.png", 200)
    args = SampleArgs(image, base, tmp_path / "views.png", views=2, ddim_steps=1, device="cpu")
    with table_of_white(base):
        sample.run(args)
    printed, messages = capsys.readouterr()
    assert messages.count(f"{image} is unlike anything the model was trained on") == 1
    assert "wrote" in printed
    sample.run(args)
    assert "unlike" not in capsys.readouterr().err


def test_sampling_is_conditioned_on_the_corrected_embedding(base, tmp_path, monkeypatch):
    image, seen = tmp_path / draw(tmp_path / "a.png", 200), []
    monkeypatch.setattr(
        sample, "sample_views", lambda model, tokens, cameras, **_: seen.append(tokens) or torch.rand(1, 2, 3, 32, 32)
    )
    args = SampleArgs(image, base, tmp_path / "views.png", views=2, ddim_steps=1, device="cpu")
    with table_of_white(base) as known:
        for limits in ((-1.0, -1.0), (1.5, 2.0)):
            write_known(replace(known, render_similarity=limits), base)
            sample.run(args)
    with torch.no_grad():
        white = read_image_encoder(base)(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(seen[1], seen[0] + CORRECTION * (white - seen[0]), atol=1e-2, rtol=0)
    assert not torch.allclose(seen[0], seen[1])


def test_a_diffusers_export_keeps_the_table(base, tmp_path):
    black = [("a.png", np.zeros((32, 32, 3), np.float32))]
    with table_of_white(base):
        export(ExportArgs(base, tmp_path / "diffusers"))
        assert unknown_warnings(tmp_path / "diffusers", black) == unknown_warnings(base, black) != [None]
    export(ExportArgs(base, tmp_path / "without"))
    assert not (tmp_path / "without" / "known").exists()


def test_drawings_and_their_mirror_images_follow_the_views(objects, base, tmp_path):
    folder = tmp_path / "drawings"
    folder.mkdir()
    (folder / "labels.csv").write_text(
        f"file,label\n{draw(folder / 'a.png', 10)},cat\n{draw(folder / 'b.png', 90)},dog\n"
    )
    labels = tmp_path / "kinds.csv"
    labels.write_text("uid,label\n" + "\n".join(f"synthetic-{i:04d},cat" for i in range(60)))
    arguments = [str(objects), "--model", str(base), "--labels", str(labels), "--views", "1", "--device", "cpu"]
    run(parse(arguments))
    plain = read_known(base)
    run(parse([*arguments, "--drawings", str(folder)]))
    known = read_known(base)
    assert known.num_renders == plain.num_renders == len(plain.kind_numbers)
    assert known.render_similarity == plain.render_similarity
    assert torch.equal(known.embeddings.integers[: known.num_renders], plain.embeddings.integers)
    rgb = torch.from_numpy(prepare_image(folder / "a.png", 32).rgb).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = read_image_encoder(base)(torch.cat([rgb, rgb.flip(-1)])) - known.mean
    torch.testing.assert_close(known.embeddings.values()[known.num_renders :], expected, atol=0.05, rtol=0)
    assert known.kind_numbers[known.num_renders :].tolist() == [known.kinds.index("cat")] * 2


def test_the_similarities_of_validation_views_are_those_to_renders():
    """The second representative, a drawing, is equal to the views."""
    rows = round_rows(torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    table = KnownObjects(torch.zeros(2), torch.eye(2), rows, torch.tensor([0, 0]), 1, ("cat",), 0.0, "0")
    low, high = command._render_similarity(table, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    assert (low, high) == pytest.approx((0.6, 0.6), abs=1e-2)


def test_the_similarities_of_validation_views_say_which_embeddings_are_corrected(objects, base):
    shards = ShardSet(objects)
    training, validation = split_set(shards, "auto", 0.05)
    known = make_known(base, Sources(training, validation, Calibration(), views=2), CPU)
    embed = torch.no_grad()(read_image_encoder(base))
    found = known.similarities(embed_objects(validation, embed, 2, "objects").embeddings).amax(1)
    assert known.render_similarity == pytest.approx((float(found.quantile(0.1)), float(found.quantile(0.5))), abs=1e-4)


@pytest.fixture
def timm_model(tmp_path) -> tuple[Path, Path]:
    """A model whose image encoder is a timm network, and a file like that of its pretrained weights."""
    micro = micro_model()
    with seeded(0):
        encoder = build_image_encoder(TimmEncoder("test_efficientnet", MICRO.tower.embed_dim, 32, color_grid=1))
    model = assemble(micro.unet, micro.vae, encoder, micro.spec, device=CPU)
    save_model(model, tmp_path / "model")
    tensors = [*encoder.visual.trunk.state_dict().values()]
    weight = torch.randn(1000, encoder.visual.num_features, generator=torch.Generator().manual_seed(1))
    tensors += [weight, torch.zeros(1000)]
    torch.save({str(number): tensor for number, tensor in enumerate(tensors)}, tmp_path / "w.pth")
    return tmp_path / "model", tmp_path / "w.pth"


def test_the_classifier_of_the_pretrained_network_is_used(objects, timm_model, tmp_path, capsys):
    """The classifier is used if there is one."""
    folder, file = timm_model
    labels = tmp_path / "kinds.csv"
    kinds = ("cat", "banana", "snowman")
    labels.write_text("uid,label\n" + "\n".join(f"synthetic-{i:04d},{kinds[i % 3]}" for i in range(60)))
    arguments = [str(objects), "--model", str(folder), "--labels", str(labels), "--views", "1", "--device", "cpu"]
    run(parse([*arguments, "--backbone", str(file)]))
    known = read_known(folder)
    assert known.kinds == ("banana", "cat", "snowman")
    assert known.num_colors == 3
    assert known.classes.pairs.tolist() == [[954, 0], *([number, 1] for number in (281, 282, 283, 284, 285))]
    assert known.statistics["groups"][VALIDATION]["warned_share"] <= 0.1
    image = ("a.png", np.zeros((32, 32, 3), np.float32))
    write_known(replace(known, threshold=1e3), folder)
    assert unknown_warnings(folder, [image]) == [None]
    write_known(replace(known, threshold=-1e3), folder)
    assert "unlike anything" in unknown_warnings(folder, [image])[0]
    run(parse(arguments))
    assert read_known(folder).classes is None
    assert "does not use an ImageNet classifier: no package" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"none\.pth.*--backbone"):
        run(parse([*arguments, "--backbone", str(tmp_path / "none.pth")]))


def test_each_reason_to_leave_the_classifier_out_is_said(base, timm_model, capsys):
    folder, file = timm_model
    encoder = read_image_encoder(folder)
    assert known_classes(encoder, ["cat"], file) is not None
    assert known_classes(encoder, ["snowman"], file) is None
    assert "no known kind has a class" in capsys.readouterr().err
    assert known_classes(read_image_encoder(base), ["cat"], file) is None
    assert "not a network of timm" in capsys.readouterr().err
    with torch.no_grad():
        next(encoder.visual.trunk.parameters()).add_(0.5)
    assert known_classes(encoder, ["cat"], file) is None
    assert "other weights than the pretrained network" in capsys.readouterr().err
