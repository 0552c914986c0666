"""Define types of command-line options, for the dataclasses from which tyro makes command lines."""

from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")
HiddenDefault = Annotated[T, tyro.conf.arg(help_behavior_hint="")]
"""An option whose "(default: ...)" is hidden in --help. Use it for the defaults None and (), which the text explains.
"""
