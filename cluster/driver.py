"""Run `python -m render` on the Ray cluster whose head node is this machine: `python -m cluster.driver`.

Ray sends the code of this checkout (`working_dir`) to every worker process, also on nodes that join the cluster later.
On each node, the worker processes run this code with the Python that started Ray on that node; that Python must have
the required packages installed.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import tyro

from dataset.errors import UserError, run_cli
from dataset.io.ray_env import code_for_nodes
from render.cli import RenderCommand
from render.driver import run

WORKER_PACKAGES: Final = ("dataset", "render")  # imported by workers


@contextmanager
def cluster_connection() -> Iterator[None]:
    """Connect to the Ray cluster during the `with` block, and send this checkout's code to the nodes of the cluster.

    Raises:
        UserError: No Ray cluster runs on this machine.
    """
    import ray

    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": "auto",
    }  # makes the renderer use this cluster
    try:
        ray.init(
            address="auto",
            runtime_env=code_for_nodes(WORKER_PACKAGES),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except ConnectionError as error:
        raise UserError("no Ray cluster runs on this machine; start one with `ray up cluster/render.yaml`") from error
    try:
        yield
    finally:
        ray.shutdown()


def main() -> int:
    command = tyro.cli(RenderCommand, prog="cluster/render_job.py", description="Render on this Ray cluster.")
    with cluster_connection():
        return run(command)


if __name__ == "__main__":
    run_cli(main)
