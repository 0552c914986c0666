"""Where this checkout lies: commands and worker processes are started from its root."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
