"""Types of command-line options, for dataclasses that tyro parses."""

from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")
HiddenDefault = Annotated[T, tyro.conf.arg(help_behavior_hint="")]
"""An option for which --help shows no "(default: ...)". For defaults of None and (), which the help text explains."""
