"""Recognizing the object in an image: warnings, kinds, and the embedding that conditions the model."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.errors import UserError
from tests.support.known_table import table_of_white
from tests.support.train_micro import CPU
from train.model.multiview import load_model
from train.model.recognition.recognize import describe_unknown, embed_input, recognize, unknown_warnings
from train.model.recognition.table import CORRECTION, write_known

pytestmark = pytest.mark.usefixtures("one_thread")

WHITE, BLACK = np.ones((32, 32, 3), np.float32), np.zeros((32, 32, 3), np.float32)


def test_the_warning_says_what_to_expect_and_what_to_do():
    assert describe_unknown("a.png", ["cat", "owl", "cow"]) == (
        "a.png is unlike anything the model was trained on. The nearest known kinds are: cat, owl, cow. Expect a poor "
        "result; for other kinds of objects, use another model (MODEL=... or --model)."
    )
    assert "nearest" not in describe_unknown("a.png", [])


def test_without_a_table_nothing_is_said_and_nothing_is_corrected(base, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "train"):
        assert unknown_warnings(tmp_path, [("a.png", WHITE)]) == [None]
    assert caplog.text == ""
    with caplog.at_level(logging.DEBUG, "train"):
        assert unknown_warnings(tmp_path, [("a.png", WHITE), ("b.png", WHITE)]) == [None, None]
    assert caplog.text.count("no table of known objects") == 1
    model, rgb = load_model(base, CPU), torch.rand(2, 3, 32, 32)
    assert torch.equal(embed_input(model, tmp_path, rgb), model.embed_image(rgb))


def test_images_are_compared_with_the_training_images(base, caplog):
    """A table whose only representative is a white image: white is known, a black square is not."""
    with table_of_white(base) as known:
        with caplog.at_level(logging.INFO, "train"):
            assert unknown_warnings(base, [("white.png", WHITE)]) == [None]
        assert "white.png: most similar known kinds: paper (100%)" in caplog.text
        found = unknown_warnings(base, [("black.png", BLACK), ("white.png", WHITE)])
        assert found == [describe_unknown("black.png", ["paper"]), None]
        write_known(replace(known, image_encoder_sha256="0"), base)
        with pytest.raises(UserError, match="known: made with another image encoder than the one in"):
            unknown_warnings(base, [("white.png", WHITE)])


def test_the_embedding_of_an_unfamiliar_image_is_corrected_in_float32(base):
    rgb = torch.stack([torch.ones(3, 32, 32), torch.zeros(3, 32, 32)])
    with table_of_white(base) as known:
        write_known(replace(known, render_similarity=(-0.5, 0.5)), base)
        model = load_model(base, CPU)
        plain, found = model.embed_image(rgb), embed_input(model, base, rgb)
        torch.testing.assert_close(found[0], plain[0])
        torch.testing.assert_close(found[1], plain[1] + CORRECTION * (plain[0] - plain[1]), atol=1e-2, rtol=0)
        half = load_model(base, CPU, torch.bfloat16)
        assert torch.equal(embed_input(half, base, rgb), found)
        results = recognize(base, list(rgb))
        assert [each.unknown for each in results] == [False, True]
        assert [each.kinds for each in results] == [("paper",)] * 2
        assert results[0].probabilities == pytest.approx((1.0,))
