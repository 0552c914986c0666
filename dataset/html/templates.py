"""Render the HTML pages of all packages from Jinja templates.

A template is stored beside the module that uses it. Functions take the path of the template in the checkout, such as
`distill/view/page.html`. Templates extend `dataset/html/base.html` and use the macros of `dataset/html/parts.html`. A
page is one file that contains its style sheet, scripts and images.
"""

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dataset.html.formats import format_bytes
from dataset.io.paths import ROOT


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Return the HTML of the template at the path `template` (relative to the checkout), filled with `values`.

    All texts in `values` are escaped.

    Raises:
        jinja2.UndefinedError: The template uses a name that is not in `values`.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["embed_file"] = embed_file
    environment.filters["thousands"] = "{:,}".format
    environment.filters["bytes"] = format_bytes
    return environment


def embed_file(path: str) -> Markup:
    """Return the text of a script or style sheet, for use inside `<script>` or `<style>`, where nothing is escaped.

    `path` is relative to the checkout.

    Raises:
        ValueError: The file contains an end tag, which would end the `<script>` or `<style>` element early.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    for tag in ("</script", "</style"):
        if tag in text.lower():
            raise ValueError(f"{path} contains {tag!r} and cannot be embedded in a page; remove the tag from this file")
    return Markup(text)  # a file of this checkout, not untrusted text


def data_url(media_type: str, data: bytes) -> str:
    """Return a data: URL that contains `data`, for the `src` of an image or a video.

    `media_type` is the type of the data, such as "image/png".
    """
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
