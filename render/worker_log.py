"""What the workers say, in the driver's folder: one file a worker, wherever the worker runs."""

from pathlib import Path


class WorkerLogs:
    """Appends to `FOLDER/worker-HOST-PID.log`. The folder appears with the first line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, worker: str, text: str) -> None:
        if text:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"worker-{worker}.log").open("a", encoding="utf-8") as file:
                file.write(f"{text}\n")
