"""Eval mode for a while."""

from contextlib import contextmanager

__all__ = ["eval_mode"]


@contextmanager
def eval_mode(model):
    """Put every module into eval mode, and back into the mode it was in, whatever happens in between.

    Parameters
    ----------
    model : torch.nn.Module

    Yields
    ------
    torch.nn.Module
        The same model.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
