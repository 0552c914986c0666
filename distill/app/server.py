"""Start the web server of the app: no telemetry, no requests from foreign hosts or pages, only published files."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dataset.errors import UserError
from distill.app.guard import LOCAL_HOSTS, Guard
from distill.app.inputs import LARGEST_UPLOAD
from distill.app.service import AppService

LOOPBACK: Final = "127.0.0.1"
_PORTS: Final = 100  # number of ports to try
_CSS: Final = Path(__file__).with_name("app.css")
_ENVIRONMENT: Final = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_ALLOWED_PATHS": "",
    "GRADIO_NUM_WORKERS": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@contextmanager
def serve(service: AppService, cache: Path, *, host: str | None = None, port: int = 0) -> Iterator[str]:
    """Serve the app during the `with` block, and yield its address. A process can do this once.

    Args:
        service: What the page shows and controls.
        cache: An empty folder for uploaded files and for copies of results, the only folder whose files are served.
        host: Address to serve on; None: this machine only.
        port: First port to try; 0: any free port.

    Raises:
        UserError: the host or the port cannot be used.
    """
    if "gradio" in sys.modules and os.environ.get("GRADIO_TEMP_DIR") != str(cache):
        raise UserError("gradio was imported before the app set its folders; start the app in a process of its own")
    os.environ.update(_ENVIRONMENT, GRADIO_TEMP_DIR=str(cache))
    import gradio as gr
    from starlette.middleware import Middleware

    from distill.app.page import make_page

    address, chosen = host or LOOPBACK, _free_port(host or LOOPBACK, port)
    hosts = LOCAL_HOSTS if host is None else ()
    page = make_page(service, cache)
    try:
        page.launch(
            server_name=address,
            server_port=chosen,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=False,
            max_file_size=LARGEST_UPLOAD,
            allowed_paths=[],
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=[_CSS],
            app_kwargs={
                "middleware": [Middleware(Guard, hosts=hosts, cache=cache)],
                "docs_url": None,
                "redoc_url": None,
            },
        )
    except OSError as error:
        raise UserError(f"the app cannot be served at {address}:{chosen} ({error}); give another --port") from error
    try:
        yield f"http://{'127.0.0.1' if address == '0.0.0.0' else address}:{chosen}/"
    finally:
        page.close(verbose=False)


def _free_port(host: str, port: int) -> int:
    """Return the first free port from `port` on.

    Raises:
        UserError: no port is free, or `host` is not an address of this machine.
    """
    problem: OSError | None = None
    for each in range(port, min(port + _PORTS, 65536)) if port else (0,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, each))
            except OSError as error:
                problem = error
                continue
            return int(probe.getsockname()[1])
    raise UserError(f"no port from {port} on can be used at {host} ({problem}); give another --port or --host")
