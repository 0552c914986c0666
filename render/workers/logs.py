"""Write the log messages of render workers to files, one file per worker."""

import time
from pathlib import Path


def stamped(text: str) -> str:
    """Return `text` as a line of a log, with the current local time before it."""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"


class WorkerLogs:
    """Appends the messages of each worker to the file worker-HOST-PID.log in `folder`, which is created if needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, worker: str, text: str) -> None:
        if text:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"worker-{worker}.log").open("a", encoding="utf-8") as file:
                file.write(f"{text}\n")
