"""The classes of ImageNet that belong to kinds of objects."""

from render.procedural.catalog import KINDS
from train.components import imagenet_classes
from train.components.imagenet_classes import classes_of

WITHOUT_CLASSES = {"cactus", "crown", "lantern", "robot", "scissors", "snowman"}


def test_kinds_have_classes_and_look_alikes() -> None:
    assert classes_of(["banana"]) == [954]
    assert classes_of(["cat"]) == [281, 282, 283, 284, 285]
    assert classes_of(["banana", "nothing", "cat"]) == [281, 282, 283, 284, 285, 954]
    assert classes_of(["nothing"]) == classes_of([]) == []
    assert set(classes_of(["owl", "duck", "penguin", "chicken"])) < set(classes_of(["bird"]))
    assert 479 not in classes_of(["car"])  # car wheel


def test_every_procedural_kind_with_a_class_has_an_entry() -> None:
    assert {kind for kind in KINDS if not classes_of([kind])} == WITHOUT_CLASSES


def test_every_entry_is_a_class() -> None:
    for kind in imagenet_classes._CLASSES_OF_KINDS:
        numbers = classes_of([kind])
        assert numbers
        assert 0 <= numbers[0] <= numbers[-1] <= 999
