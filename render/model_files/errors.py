"""Errors in a model file. The class names are stored as `error_class` in the outcome table."""


class ModelError(ValueError):
    """A model file cannot be used. The message gives the reason."""


class UnsafeReference(ModelError):
    """A model file refers to a file outside of the source folder."""


class NonFinitePositions(ModelError):
    """A vertex position or the transform of a node is NaN or infinite."""


class TooLarge(ModelError):
    """A model file, or an image that it uses, declares more data than the limits of this package allow."""
