"""Start or connect to Ray, and send the code of this checkout to the nodes of a cluster."""

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from dataset.errors import UserError, one_line
from dataset.io.paths import ROOT

logger = logging.getLogger(__name__)
RAY_STARTS: Final = 3


def exclude_all_but(packages: Sequence[str]) -> list[str]:
    """Return .gitignore patterns that make Ray send only `packages` to the nodes and no other files of the checkout.

    `packages` are top-level packages of this checkout, such as "render". Excluded files include those in .venv.
    """
    kept = (f"!/{package}{contents}" for package in packages for contents in ("", "/**"))
    return ["/[!.]*", "/.?*", *kept, "__pycache__/"]


def code_for_nodes(packages: Sequence[str]) -> dict[str, Any]:
    """Return the Ray `runtime_env` that sends the top-level `packages` of this checkout to worker processes."""
    return {"working_dir": str(ROOT), "excludes": exclude_all_but(packages)}


def start_ray(**options: Any) -> None:
    """Call `ray.init(**options)` without letting Ray replace this process's SIGTERM handler.

    With the option `address="local"`, `ray.init` is tried up to RAY_STARTS times, because Ray waits only 30 s for its
    processes to start, which is too short on a busy machine. With another address, `ray.init` is called once.

    Raises:
        UserError: With `address="local"`, the last attempt failed. All other errors of `ray.init`, such as those about
            wrong options, are raised unchanged.
    """
    import ray

    with _keep_sigterm_handler():
        if options.get("address") != "local":
            ray.init(**options)
            return
        for attempt in range(1, RAY_STARTS + 1):
            try:
                ray.init(**options)
            except (TypeError, ValueError):  # wrong options, not a slow start
                raise
            except Exception as error:  # Ray raises a bare Exception for most of its time-outs
                ray.shutdown()
                if attempt == RAY_STARTS:
                    raise UserError(
                        f"Ray did not start on this machine in {RAY_STARTS} attempts ({one_line(error)}); wait until "
                        "the machine is less busy or has more free memory, then repeat the command"
                    ) from error
                logger.warning("Ray did not start (%s); trying again", one_line(error))
            else:
                return


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the SIGTERM handler after the block, because Ray's own handler prints a C++ stack trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
