"""Errors in a model file. The class names are stored as `error_class` in the outcome table."""


class ModelError(ValueError):
    """The file is not usable; the message says why."""


class UnsafeReference(ModelError):
    """The file refers to something outside of its own folder."""


class NonFinitePositions(ModelError):
    """A vertex position or a node's place is NaN or infinite."""


class TooLarge(ModelError):
    """The file claims more than any machine should try to hold."""
