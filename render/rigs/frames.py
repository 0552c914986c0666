"""Choose the frame of an animated object."""

from dataset.errors import UserError
from render.procedural.catalog import generator


def check_frame(choice: str) -> str:
    """Return the value of --frame. Raises UserError if it is none of first, random and a number of at least 0."""
    if choice not in ("first", "random") and not (choice.isascii() and choice.isdigit() and len(choice) <= 6):
        raise UserError(
            f"--frame is {choice!r}; choose first, random, or a number of frames after the first, such as 10"
        )
    return choice


def frame_number(choice: str, first: int, last: int, *, seed: int, uid: str) -> int:
    """Return the number of the frame to show.

    Args:
        choice: first, random (each frame is equally likely), or a number N: the frame N after the first, or the last
            frame if there are fewer.
        first: Number of the animation's first frame.
        last: Number of the animation's last frame.
        seed: Seed of the shard set.
        uid: Uid of the object.
    """
    if choice == "first" or last <= first:
        return first
    if choice == "random":
        return int(generator("frame", seed, uid).integers(first, last + 1))
    return min(first + int(choice), last)
