"""Errors of single objects of an import. The outcome table stores the name of the class and the message."""

from dataset.errors import UserError


class CameraFileError(UserError):
    """The camera file of an object, or a camera in it, cannot be used."""


class ViewImageError(UserError):
    """An image of an object cannot be used."""
