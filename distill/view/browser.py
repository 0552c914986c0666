"""Open a page in the browser of the user, if there is one."""

import logging
import os
import sys
import webbrowser
from typing import Final

logger = logging.getLogger(__name__)

_SCREENS: Final = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # without these, only browsers for the terminal can start


def open_in_browser(address: str) -> bool:
    """Open a page in a graphical browser and return whether this succeeded. If not, a message says so.

    Args:
        address: Address of the page, such as a file: or http: URL.
    """
    opened = False
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in _SCREENS):
        try:
            opened = webbrowser.open(address)
        except (webbrowser.Error, OSError):
            opened = False
    if not opened:
        logger.info("no browser can be opened here; open %s", address)
    return opened
