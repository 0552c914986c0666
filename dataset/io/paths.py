"""Define ROOT, the top folder of this checkout, in which commands and worker processes are started."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
