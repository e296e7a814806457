"""Variational autoencoders for images. The public names are in `__init__.pyi`, and are imported when first asked for."""

__version__ = "0.1.0"

from lazy_loader import attach_stub

_imported, __dir__, __all__ = attach_stub(__name__, __file__)


def __getattr__(name):
    "A public name; its docstring tells what its parameters are, too."
    public = _imported(name)
    if name in __all__:
        from .basics.checks import describe_parameters
        describe_parameters(public)
    return public
