"""What curvature says about the difference between an ensemble and a soup."""

import contextlib
import copy
import warnings

import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import ProbeError
from ..modes import eval_mode

__all__ = ["second_order_gap"]


def second_order_gap(model, members, images, step=None):
    """Return what second order says of logit ensemble minus soup: the curvature at the soup towards each member.

    .. math:: \\frac1N \\sum_i f(\\bar\\theta + \\delta_i) - f(\\bar\\theta)
              \\approx \\frac{1}{2N} \\sum_i \\frac{d^2}{dt^2} f(\\bar\\theta + t\\,\\delta_i) \\Big|_{t=0}

    with f the logits of an image and :math:`\\delta_i` the way from the soup to member i; first
    derivatives cancel because these sum to zero. BatchNorm's running statistics count as weights here.
    With a step h, a second difference takes the place of the derivative:

    .. math:: \\frac{f(\\bar\\theta + h\\delta_i) - 2 f(\\bar\\theta) + f(\\bar\\theta - h\\delta_i)}{h^2}

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode; left as it was.
    members : sequence of dict of str to Tensor
        At least one.
    images : Tensor, shape (sample, channel, height, width)
        Normalised. Their dtype is the one that all is computed in.
    step : float or None
        None takes the derivative itself, which sees no unit of a ReLU network switch on or off. A
        number h in (0, 1] takes the second difference over that share of the way to either side, which
        sees those that switch within it.

    Returns
    -------
    Tensor, shape (sample, class)

    Raises
    ------
    ProbeError
        If the step is outside (0, 1].

    References
    ----------
    Wortsman et al. (2022), Model soups, Section 4, for two members of a network that is smooth.
    https://arxiv.org/abs/2203.05482
    """
    if step is not None and not 0 < step <= 1:
        fix = "Pass a share of the way from the soup to a member."
        raise ProbeError("cannot measure curvature", "step", repr(step), "a number in (0, 1], or None", fix)
    like = images.device, images.dtype
    wide = [{key: tensor.to(*like) for key, tensor in m.items() if tensor.is_floating_point()} for m in members]
    centre = {key: sum(member[key] for member in wide) / len(wide) for key in wide[0]}
    model = model if step else _differentiable(model)

    def along(member):
        """Return the logits as a function of the share of the way from the soup to a member."""

        def logits(way):
            state = {key: centre[key] + way * (member[key] - centre[key]) for key in centre}
            for key in state:
                if key.endswith("running_var"):  # on the far side of the soup a variance can fall below 0
                    state[key] = state[key].clamp_min(0)
            return functional_call(model, state, (images,))

        return logits

    with eval_mode(model), torch.no_grad(), plain_attention():
        if step:
            middle = along(wide[0])(0)
            bends = [(along(member)(step) - 2 * middle + along(member)(-step)) / step**2 for member in wide]
        else:
            bends = [_second_derivative(along(member), *like) for member in wide]
    return sum(bends) / (2 * len(wide))


def _second_derivative(function, device, dtype):
    zero, one = torch.zeros((), device=device, dtype=dtype), torch.ones((), device=device, dtype=dtype)

    def slope(way):
        return jvp(function, (way,), (one,))[1]

    with warnings.catch_warnings():
        # The first forward derivative of a process loads a part of torch that torch itself calls deprecated.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        return jvp(slope, (zero,), (one,))[1]


class _PlainLayerNorm(nn.Module):
    """LayerNorm as plain arithmetic.

    Torch's own has a forward derivative that takes mean and spread for constants when it is
    differentiated once more: the second derivative then comes out wrong, without a word.
    """

    def __init__(self, norm):
        super().__init__()
        self.eps, self.axes = norm.eps, [-1 - axis for axis in range(len(norm.normalized_shape))]
        self._parameters = norm._parameters

    def forward(self, x):
        x = x - x.mean(self.axes, keepdim=True)
        x = x * (x.square().mean(self.axes, keepdim=True) + self.eps).rsqrt()
        return x * self.weight + self.bias


class _PlainBatchNorm(nn.Module):
    """BatchNorm in eval mode as plain arithmetic: torch's own has no derivative with respect to its statistics."""

    def __init__(self, norm):
        super().__init__()
        self.eps = norm.eps
        self._parameters, self._buffers = norm._parameters, norm._buffers

    def forward(self, x):
        shape = (1, -1) + (1,) * (x.dim() - 2)
        factor = self.weight * (self.running_var + self.eps).rsqrt()
        return x * factor.view(shape) + (self.bias - self.running_mean * factor).view(shape)


def _differentiable(model):
    """Return a copy of a model whose norms can be differentiated twice, BatchNorm's statistics included."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, _PlainBatchNorm(child))
            elif isinstance(child, nn.LayerNorm):
                setattr(parent, name, _PlainLayerNorm(child))
    return model


@contextlib.contextmanager
def plain_attention():
    """Let attention be computed by plain products: fused kernels have no forward derivative, and nobody counts them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
