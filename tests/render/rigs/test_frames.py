import pytest

from dataset.errors import UserError
from render.rigs.frames import check_frame, frame_number


def test_first_numbered_and_last_frames():
    assert frame_number("first", 3, 9, seed=0, uid="a") == 3
    assert frame_number("4", 3, 9, seed=0, uid="a") == 7
    assert frame_number("40", 3, 9, seed=0, uid="a") == 9
    assert frame_number("random", 3, 3, seed=0, uid="a") == 3


def test_random_frames_are_all_drawn_and_repeat():
    drawn = [frame_number("random", 3, 9, seed=0, uid=f"o{i}") for i in range(300)]
    assert set(drawn) == set(range(3, 10))
    assert drawn == [frame_number("random", 3, 9, seed=0, uid=f"o{i}") for i in range(300)]
    assert drawn != [frame_number("random", 3, 9, seed=1, uid=f"o{i}") for i in range(300)]


@pytest.mark.parametrize("choice", ["last", "-1", "1.5", "", "1234567"])
def test_other_choices_are_refused(choice):
    with pytest.raises(UserError, match="choose first, random, or a number"):
        check_frame(choice)
