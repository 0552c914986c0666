"""The table of known objects: similarities, kinds, corrected embeddings, and damaged or missing files."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from dataset.errors import UserError
from train.model.recognition.classes import KnownClasses, Spread, round_classifier
from train.model.recognition.int8 import Int8Rows, round_rows
from train.model.recognition.table import (
    CLASS_FLOOR,
    CORRECTION,
    KIND_SHARPNESS,
    KNOWN_FOLDER,
    KnownObjects,
    copy_known,
    read_known,
    remove_known,
    write_known,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Representatives: a chair at (1, 0, 0), an object without a kind at (0, 1, 0), a cat at (0, 0, 1), after centering.
AXES = KnownObjects(
    mean=torch.tensor([1.0, 1.0, 1.0]),
    projection=torch.eye(3),
    embeddings=round_rows(torch.eye(3)),
    kind_numbers=torch.tensor([1, -1, 0]),
    num_renders=3,
    kinds=("cat", "chair"),
    threshold=0.5,
    image_encoder_sha256="0",
)


def test_distances_are_cosine_distances_after_the_projection():
    embeddings = 1 + torch.tensor([[5.0, 0, 0], [0, 0, -2], [1, 1, 0]])
    torch.testing.assert_close(AXES.distances(embeddings), torch.tensor([0.0, 1.0, 1 - 0.5**0.5]))
    stretched = replace(AXES, projection=torch.diag(torch.tensor([1.0, 1e-6, 1])))
    assert float(stretched.distances(embeddings)[2]) < 1e-6


def test_the_probability_of_a_kind_is_that_of_its_nearest_representative():
    """Two representatives of cats count as one kind; the one without a kind is the last column."""
    table = replace(
        AXES,
        embeddings=round_rows(torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 1, 0], [0, 0, 1]])),
        kind_numbers=torch.tensor([0, 0, 1, -1]),
        num_renders=4,
    )
    embeddings = 1 + torch.tensor([[3.0, 0, 0], [0, 0, 2], [0, 5, 0]])
    best = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0.8, 1, 0]])
    expected = (KIND_SHARPNESS * best).softmax(1)
    torch.testing.assert_close(table.kind_probabilities(embeddings), expected, atol=5e-3, rtol=0)
    without = replace(AXES, kind_numbers=torch.tensor([1, 1, 0])).kind_probabilities(embeddings)
    assert without[:, -1].tolist() == [0, 0, 0]


def test_likely_kinds_skip_objects_without_a_kind():
    assert AXES.likely_kinds(torch.tensor([0.1, 0.3, 0.6]), 3) == ("chair", "cat")
    assert AXES.likely_kinds(torch.tensor([0.1, 0.3, 0.6]), 1) == ("chair",)
    assert replace(AXES, kinds=()).likely_kinds(torch.tensor([1.0]), 3) == ()


def with_classes(similarity=(-1.0, -1.0)) -> KnownObjects:
    """Return AXES with a classifier: classes 1 and 3 are cats, class 2 is a chair."""
    classes = round_classifier(torch.arange(15.0).reshape(5, 3), torch.arange(5.0), [(1, 0), (3, 0), (2, 1)])
    classes = replace(classes, log_probability=Spread(-1.0, 2.0), similarity=Spread(0.25, 0.5))
    return replace(AXES, classes=classes, render_similarity=similarity)


def test_the_classifier_decides_about_images_that_are_unlike_the_representatives():
    """The embedding is most similar to a chair (0.8, then 0.6 to a cat); the classifier sees a cat."""
    embeddings, logits = 1 + torch.tensor([[0.8, 0, 0.6]]), torch.tensor([[0.0, 9, 0, 0, 0]])
    similar = KIND_SHARPNESS * torch.tensor([[0.6, 0.8, 0]])
    familiar = with_classes((0.1, 0.5)).kind_probabilities(embeddings, logits)
    torch.testing.assert_close(familiar, similar.softmax(1))
    likely = with_classes().classes.kind_probabilities(logits, 2)[0]
    prior = (torch.tensor([[*likely.tolist(), 0]]) + CLASS_FLOOR).log()
    strange = with_classes((0.9, 0.95)).kind_probabilities(embeddings, logits)
    torch.testing.assert_close(strange, (similar + prior).softmax(1))
    assert (familiar.argmax(), strange.argmax()) == (1, 0)
    half = with_classes((0.7, 0.9)).kind_probabilities(embeddings, logits)
    torch.testing.assert_close(half, (similar + prior / 2).softmax(1))


def test_embeddings_like_those_of_renders_are_not_corrected():
    embeddings = 1 + torch.tensor([[5.0, 0.2, 0.1]])
    assert torch.equal(with_classes((0.4, 0.6)).correct(embeddings, torch.zeros(1, 5)), embeddings)
    assert torch.equal(AXES.correct(embeddings), embeddings)


def test_the_colors_of_an_embedding_are_not_corrected():
    """The last two channels are colors. The first one moves as in a table without colors."""
    table = with_classes((0.995, 0.999))
    embeddings, chair = 1 + torch.tensor([[0.3, 0.1, 0.3]]), torch.tensor([[0.0, 0, 20, 0, 0]])
    moved = table.correct(embeddings, chair)
    assert not (moved == embeddings).any()
    kept = replace(table, num_colors=2).correct(embeddings, chair)
    assert torch.equal(kept[:, :1], moved[:, :1])
    assert torch.equal(kept[:, 1:], embeddings[:, 1:])


def test_other_embeddings_move_toward_representatives_of_the_probable_kind():
    """Two chairs; the one that is more similar to the embedding counts, and the cat does not."""
    table = replace(
        with_classes((0.995, 0.999)),
        embeddings=round_rows(torch.tensor([[10.0, 0, 0], [6, 8, 0], [0, 0, 10]])),
        kind_numbers=torch.tensor([1, 1, 0]),
    )
    embeddings, chair = 1 + torch.tensor([[4.0, 1, 1]]), torch.tensor([[0.0, 0, 20, 0, 0]])
    expected = (1 - CORRECTION) * embeddings + CORRECTION * (1 + torch.tensor([[10.0, 0, 0]]))
    torch.testing.assert_close(table.correct(embeddings, chair), expected, atol=0.05, rtol=0)
    cat = torch.tensor([[0.0, 20, 0, 0, 0]])
    assert float(table.correct(embeddings, cat)[0, 2]) > float(table.correct(embeddings, chair)[0, 2])


def test_drawings_tell_kinds_but_embeddings_are_not_moved_toward_them():
    """The same rows; the second chair, which the embedding resembles, is a drawing."""
    rows = round_rows(torch.tensor([[10.0, 0, 0], [0, 0, 10], [6, 8, 0]]))
    renders = replace(with_classes((0.995, 0.999)), embeddings=rows, kind_numbers=torch.tensor([1, 0, 1]))
    drawn = replace(renders, num_renders=2)
    embeddings, chair = 1 + torch.tensor([[6.0, 8, 0]]), torch.tensor([[0.0, 0, 20, 0, 0]])
    assert float(renders.distances(embeddings, chair)) == float(drawn.distances(embeddings, chair))
    assert float(drawn.kind_probabilities(embeddings, chair)[0, 1]) > 0.99
    assert torch.equal(renders.correct(embeddings, chair), embeddings)  # a render is that similar
    expected = (1 - CORRECTION) * embeddings + CORRECTION * (1 + torch.tensor([[10.0, 0, 0]]))
    torch.testing.assert_close(drawn.correct(embeddings, chair), expected, atol=0.05, rtol=0)


def test_the_classifier_also_decides_about_images_like_a_drawing():
    """The embedding is equal to the drawing of a cat and unlike the render of a chair; the classifier sees a chair."""
    rows = round_rows(torch.tensor([[10.0, 0, 0], [0, 0, 10], [0, 10, 0]]))
    table = replace(with_classes((0.9, 0.95)), embeddings=rows, kind_numbers=torch.tensor([1, 0, 0]), num_renders=2)
    embeddings, chair = 1 + torch.tensor([[0.0, 4, 0]]), torch.tensor([[0.0, 0, 20, 0, 0]])
    likely = table.classes.kind_probabilities(chair, 2)[0]
    prior = (torch.tensor([[*likely.tolist(), 0]]) + CLASS_FLOOR).log()
    best = torch.tensor([[1.0, 0, -1e4]])
    torch.testing.assert_close(table.kind_probabilities(embeddings, chair), (KIND_SHARPNESS * best + prior).softmax(1))


def test_a_table_with_a_classifier_needs_logits():
    for method in (with_classes().distances, with_classes().kind_probabilities, with_classes().correct):
        with pytest.raises(ValueError, match="needs the logits"):
            method(torch.ones(1, 3))


def test_the_weights_of_the_representatives_add_up_to_one():
    """All representatives are equal, so every corrected embedding lies between the embedding and these."""
    table = replace(with_classes((1.5, 2.0)), embeddings=round_rows(torch.ones(3, 3)))
    embeddings = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = table.correct(embeddings, torch.zeros(4, 5))
    torch.testing.assert_close(found, embeddings + CORRECTION * (2 - embeddings))


def test_a_table_is_read_as_it_was_written(tmp_path):
    written = replace(AXES, statistics={"views": 4}, num_colors=2)
    write_known(written, tmp_path)
    known = read_known(tmp_path)
    for name, value in vars(written).items():
        assert same(getattr(known, name), value), name
    copy_known(tmp_path, tmp_path / "other")
    assert (tmp_path / "other" / KNOWN_FOLDER / "known.json").is_file()
    remove_known(tmp_path)
    assert read_known(tmp_path) is None
    remove_known(tmp_path)
    copy_known(tmp_path, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_table_without_the_number_of_colors_has_none(tmp_path):
    """Tables that were written before there were colors are read."""
    write_known(AXES, tmp_path)
    path = tmp_path / KNOWN_FOLDER / "known.json"
    settings = json.loads(path.read_text())
    del settings["num_colors"]
    path.write_text(json.dumps(settings))
    assert read_known(tmp_path).num_colors == 0


def same(found: object, value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return torch.equal(found, value)
    if isinstance(value, (Int8Rows, KnownClasses)):
        return all(same(getattr(found, name), each) for name, each in vars(value).items())
    return found == value


def test_a_table_with_a_classifier_is_read_as_it_was_written(tmp_path):
    table = with_classes((0.25, 0.75))
    write_known(table, tmp_path)
    found = read_known(tmp_path)
    assert same(found.classes, table.classes)
    assert found.render_similarity == table.render_similarity
    embeddings, logits = 1 + torch.tensor([[5.0, 0, 0], [1, 1, 0]]), torch.randn(2, 5)
    assert torch.equal(found.correct(embeddings, logits), table.correct(embeddings, logits))
    expected = table.classes.distance(logits, torch.tensor([1.0, 0.5**0.5]))
    torch.testing.assert_close(found.distances(embeddings, logits), expected)


@pytest.mark.parametrize("change", [{"classes": {}}, {"classes": []}, {"kinds": ["cat"], "classes": {}}])
def test_a_damaged_classifier_is_one_clear_error(change, tmp_path):
    write_known(with_classes(), tmp_path)
    damage_json(tmp_path, **change)
    with pytest.raises(UserError, match="known: not a readable table of known objects"):
        read_known(tmp_path)
    write_known(with_classes(), tmp_path)
    damage_tensor(tmp_path, "class_weight", torch.zeros(4, 3, dtype=torch.int8))
    with pytest.raises(UserError, match="the shapes of the classifier's tensors do not fit together"):
        read_known(tmp_path)


def damage_json(folder, **changes):
    path = folder / KNOWN_FOLDER / "known.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damage_tensor(folder, name, tensor):
    path = folder / KNOWN_FOLDER / "known.safetensors"
    save_file({**load_file(path), name: tensor}, path)


DAMAGES = {
    "no settings": lambda folder: (folder / KNOWN_FOLDER / "known.json").unlink(),
    "no tensors": lambda folder: (folder / KNOWN_FOLDER / "known.safetensors").unlink(),
    "cut tensors": lambda folder: (folder / KNOWN_FOLDER / "known.safetensors").write_bytes(b"123"),
    "not JSON": lambda folder: (folder / KNOWN_FOLDER / "known.json").write_text("{"),
    "a list": lambda folder: (folder / KNOWN_FOLDER / "known.json").write_text("[]"),
    "no number": lambda folder: damage_json(folder, threshold=None),
    "NaN": lambda folder: damage_json(folder, threshold=float("nan")),
    "a missing kind": lambda folder: damage_json(folder, kinds=["cat"]),
    "one similarity": lambda folder: damage_json(folder, render_similarity=[0.5]),
    "infinite similarity": lambda folder: damage_json(folder, render_similarity=[0.5, float("inf")]),
    "a kind without a render": lambda folder: damage_json(folder, num_renders=2),
    "other type": lambda folder: damage_tensor(folder, "embeddings", torch.full((3, 3), torch.nan)),
    "no renders": lambda folder: damage_json(folder, num_renders=0),
    "fewer than no colors": lambda folder: damage_json(folder, num_colors=-1),
    "more colors than channels": lambda folder: damage_json(folder, num_colors=4),
    "more renders than representatives": lambda folder: damage_json(folder, num_renders=4),
    "other scale": lambda folder: damage_tensor(folder, "embedding_scale", torch.ones(2)),
    "other shape": lambda folder: damage_tensor(folder, "mean", torch.zeros(4)),
    "flat": lambda folder: damage_tensor(folder, "projection", torch.zeros(3)),
    "infinite": lambda folder: damage_tensor(folder, "projection", torch.eye(3) * torch.inf),
    "empty": lambda folder: damage_tensor(folder, "kind_numbers", torch.zeros(0).short()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_table_is_one_clear_error(damage, tmp_path):
    write_known(AXES, tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match="known: not a readable table of known objects") as info:
        read_known(tmp_path)
    assert "make it again with `python -m train.known SHARDS --model" in str(info.value)
    assert str(tmp_path) in str(info.value)
    assert "\n" not in str(info.value)
