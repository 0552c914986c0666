"""Folders that tests read from."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]  # the checkout
GOLDEN_FOLDER: Final = ROOT / "tests" / "golden"
SHARED_FOLDER: Final = ROOT.parent / "shared"  # optional larger test data; tests skip without it
