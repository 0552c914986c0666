"""Shards are written as soon as all of their objects have a result, for any batches."""

import pytest

from render.output.shard_assembler import ShardAssembler
from render.workers.messages import RenderBatch
from tests.support.staged_output import FAILED, UIDS, claim, complete, contents, new_output, result


@pytest.mark.parametrize("batches", ["a b c d e", "ab cd e", "cd a b e", "d ab e c"])
def test_batches_change_no_byte_and_every_shard_is_finished(tmp_path, batches):
    output = new_output(tmp_path / "assembled")
    with output.locked():
        claim(output)
        with ShardAssembler(output) as assembler:
            assert [task.asset.uid for task in assembler.tasks()] == UIDS
            for uids in batches.split():
                assembler.accept(RenderBatch([result(output, uid) for uid in uids], 1.0, "worker"))
        assert output.finished_shards() == {0, 1, 2}
        output.finish()
    assert (assembler.done, assembler.failed, assembler.skipped) == (len(UIDS), len(FAILED), 0)
    complete(new_output(tmp_path / "one by one"), UIDS)
    assert contents(tmp_path / "assembled") == contents(tmp_path / "one by one")
