"""What the weights look like: rows, and the templates that a network of any depth amounts to."""

import math
from typing import NamedTuple

import torch
from torch.func import functional_call, vjp

from ..errors import ProbeError
from ..modes import eval_mode

__all__ = ["EffectiveTemplates", "TemplateMatch", "class_means", "effective_templates", "template_match", "templates"]


def templates(state, shape):
    """Return the weight rows that read the pixels, as pictures.

    Parameters
    ----------
    state : dict of str to Tensor
        Of a model whose first linear layer takes flattened images.
    shape : tuple of int
        (channel, height, width) of an image.

    Returns
    -------
    Tensor, shape (row, channel, height, width)
        One template per row; for the linear model a row is a class.

    Raises
    ------
    ProbeError
        If no layer reads flattened images of that shape.
    """
    size = math.prod(shape)
    for tensor in state.values():
        if tensor.dim() == 2 and tensor.shape[1] == size:
            return tensor.reshape(-1, *shape)
    found = [tuple(tensor.shape) for tensor in state.values() if tensor.dim() == 2]
    wanted = f"one with {size} columns, for images of shape {tuple(shape)}"
    fix = "Use a model that reads flattened images, or the shape it was built for."
    raise ProbeError("cannot find templates", "the linear layers", f"weights of shapes {found}", wanted, fix)


def class_means(split, n_classes, *, centred=True):
    """Return the mean image of each class, in the units of the split's normalisation.

    For grey images any units give the same correlation;
    for colour each channel has its own.

    Parameters
    ----------
    split : wamlib.data.Split
    n_classes : int
    centred : bool
        Subtract the mean of the class means: what tells a class apart, and what a
        linear classifier's row tends to under strong weight decay.

    Returns
    -------
    Tensor, float64, shape (class, channel, height, width)

    Raises
    ------
    ProbeError
        If a class has no image in the split.
    """
    absent = sorted(set(range(n_classes)) - set(split.labels.unique().tolist()))
    if absent:
        got, wanted = "no image of it in this split", f"at least one of each of {n_classes} classes"
        fix = "Use more images: a larger n_train."
        raise ProbeError("cannot average the images of a class", f"class {absent[0]}", got, wanted, fix)
    means = torch.stack([split.images[split.labels == label].double().mean(0) for label in range(n_classes)])
    means = (means - split.mean.double()[:, None, None]) / split.std.double()[:, None, None]
    return means - means.mean(0) if centred else means


class TemplateMatch(NamedTuple):
    """How well templates match reference pictures.

    Parameters
    ----------
    correlation : Tensor, float64, shape (template, class)
        Pearson correlation over pixels of each template with each picture.
    own : Tensor, float64, shape (class,)
        Its diagonal: each template with the picture of its own class.
    retrieval : float
        Templates whose best picture is that of their own class, in percent.
    """

    correlation: torch.Tensor
    own: torch.Tensor
    retrieval: float


def template_match(templates, class_means):
    """Correlate each template with each class mean.

    Parameters
    ----------
    templates, class_means : Tensor, shape (class, ...)
        Pictures of the same shape, in the same order of classes.

    Returns
    -------
    TemplateMatch

    Raises
    ------
    ProbeError
        If the shapes differ.
    """
    if templates.shape != class_means.shape:
        wanted = f"{tuple(class_means.shape)}, that of the class means"
        fix = "Compare pictures of one size, one per class."
        raise ProbeError("cannot match templates", "templates", f"shape {tuple(templates.shape)}", wanted, fix)
    rows, pictures = (_standardize(x) for x in (templates, class_means))
    correlation = rows @ pictures.T
    hits = correlation.argmax(1) == torch.arange(len(rows), device=correlation.device)
    return TemplateMatch(correlation, correlation.diagonal().clone(), 100 * hits.double().mean().item())


class EffectiveTemplates(NamedTuple):
    """The linear classifier that a network is on average over images.

    Parameters
    ----------
    pictures : Tensor, shape (class, channel, height, width)
        Mean over images of the gradient of each logit with respect to the image.
    linear_share : float
        Squared norm of the mean gradient divided by the mean squared norm, averaged over
        classes: 1 for a linear model, near 0 where every image has a gradient of its own.
    """

    pictures: torch.Tensor
    linear_share: float


def effective_templates(model, split, batch_size=250):
    """Return the templates that a network of any depth amounts to.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode whatever mode it is in; left in that mode.
    split : wamlib.data.Split
        The images to average over, on the device of the model.
    batch_size : int
        Images at a time.

    Returns
    -------
    EffectiveTemplates
        For a linear model its rows, exactly, and a linear share of 1.

    References
    ----------
    Simonyan et al. (2014), Deep Inside Convolutional Networks, Section 3, for the gradient
    of a class score as a picture. https://arxiv.org/abs/1312.6034
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}

    def logits(images):
        # In eval mode images do not see each other, so the gradient of the sum holds each one's own.
        return functional_call(model, state, (images,)).sum(0)

    total, squares = 0, 0
    with eval_mode(model):
        for images, _ in split.batches(batch_size):
            summed, pull_back = vjp(logits, images)
            # Class by class: vmap over the classes gives the same and takes two to three times as long on a CPU.
            gradients = (pull_back(one_hot)[0] for one_hot in torch.eye(len(summed), device=images.device))
            sums, norms = zip(*((g.sum(0), g.square().sum()) for g in gradients), strict=True)
            total, squares = total + torch.stack(sums), squares + torch.stack(norms)
    pictures = total / len(split)
    mean_square = (squares / len(split)).clamp_min(1e-30)
    return EffectiveTemplates(pictures, (pictures.flatten(1).square().sum(1) / mean_square).mean().item())


def _standardize(pictures):
    flat = pictures.double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)
