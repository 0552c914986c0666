"""Collect results and write each shard as soon as all of its objects have a result.

Tasks are created shard by shard, as they are consumed. A shard is in memory only from its first task until it is
written, so memory does not grow with the number of objects. Background threads write the shards.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from dataset.format.manifest import Asset
from dataset.format.outcomes import Failure, Outcome
from dataset.format.shards import shard_name
from render.output.shard_set_writer import ShardSetWriter
from render.workers.messages import RenderBatch, RenderResult, RenderTask

_WRITERS: Final = 2
_WAITING: Final = 4  # shards being written at a time, to bound memory
_EXCLUDED: Final = {
    "licence-excluded": ("LicenceExcluded", "its license is not among --include-licenses"),
    "too-large": ("TooLarge", "its file is larger than --max-file-mb"),
}


class ShardAssembler:
    """Collects the results of the workers and writes the unfinished shards of a shard set.

    Use an instance as a context manager. On exit, it waits for the writer threads and re-raises their errors.
    """

    def __init__(self, output: ShardSetWriter) -> None:
        self._output = output
        # shard -> (number of results to come, results that were never staged)
        self._open: dict[int, tuple[int, list[RenderResult]]] = {}
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="shard-writer")
        self._writing: deque[Future[None]] = deque()
        self.done = 0  # objects that have a result, from this run or an earlier one
        self.failed = self.skipped = 0  # of this run's

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writers.shutdown(wait=True)
        if kind is None:
            self._wait_for_writers(0)

    def tasks(self) -> Iterator[RenderTask]:
        """Yield a task for each object to render, in manifest order.

        `accept` takes results only of shards for which a task has been yielded.
        """
        finished = self._output.finished_shards()
        for shard in range(self._output.num_shards):
            positions = self._output.positions(shard)
            if shard in finished:
                self.done += len(positions)
                continue
            name, missing = shard_name(shard), set(self._output.missing(shard))
            self.done += len(positions) - len(missing)
            fresh: list[RenderResult] = []
            tasks = []
            for position, asset in zip(positions, self._assets(positions), strict=True):
                if position in missing and asset.excluded:
                    fresh.append(_excluded(asset, position, name))
                elif position in missing:
                    tasks.append(RenderTask(asset, position, name))
            self.done += len(fresh)
            self.skipped += len(fresh)
            self._open[shard] = (len(tasks), fresh)
            if tasks:
                yield from tasks
            else:
                self._finish(shard)

    def accept(self, batch: RenderBatch) -> None:
        """Process a batch of results, all of one shard.

        If the shard is now complete, a background thread writes it. Otherwise the results are stored in the staging
        folder. Re-raises errors of background threads that wrote earlier shards.
        """
        results = batch.results
        shard = self._output.shard_of(results[0].outcome.position)
        remaining, fresh = self._open[shard]
        remaining -= len(results)
        if remaining:
            self._output.stage(results)
            self._open[shard] = (remaining, fresh)
        else:
            self._open[shard] = (0, [*fresh, *results])
            self._finish(shard)
        self.done += len(results)
        self.failed += sum(result.outcome.status == "failed" for result in results)
        self.skipped += sum(result.outcome.status == "skipped" for result in results)

    def _assets(self, positions: range) -> Iterator[Asset]:
        return self._output.manifest.assets(positions.start, positions.stop)

    def _finish(self, shard: int) -> None:
        _, fresh = self._open.pop(shard)
        self._wait_for_writers(_WAITING - 1)
        self._writing.append(self._writers.submit(self._output.finish_shard, shard, fresh))

    def _wait_for_writers(self, allowed: int) -> None:
        """Wait until at most `allowed` shards are being written."""
        while self._writing and (len(self._writing) > allowed or self._writing[0].done()):
            self._writing.popleft().result()


def _excluded(asset: Asset, position: int, shard: str) -> RenderResult:
    kind, message = _EXCLUDED[asset.excluded]
    detail = asset.license if kind == "LicenceExcluded" else f"{(asset.bytes or 0) / 1e6:.1f} MB"
    failure = Failure("select", kind, f"{message} ({detail})", (asset.excluded,))
    return RenderResult(Outcome(asset.uid, position, shard, "ok", attempts=0).with_failure("skipped", failure))
