"""Errors in a model file. The class names are stored as `error_class` in the outcome table."""


class ModelError(ValueError):
    """The file cannot be used; the message gives the reason."""


class UnsafeReference(ModelError):
    """The file refers to a path outside of its folder."""


class NonFinitePositions(ModelError):
    """A vertex position or the transform of a node is NaN or infinite."""


class TooLarge(ModelError):
    """The file declares more data than the limits allow."""
