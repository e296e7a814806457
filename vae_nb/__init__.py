"""Variational autoencoders for images. The public names are in `__init__.pyi`, and are imported when first asked for."""

__version__ = "0.1.0"

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
