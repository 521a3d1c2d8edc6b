"""What curvature says about the difference between an ensemble and a soup."""

import torch
from torch.func import functional_call

from ..errors import ProbeError
from ..evaluate import eval_mode

__all__ = ["second_order_gap"]


def second_order_gap(model, members, images, step=0.5):
    """Return what second order says of logit ensemble minus soup: the curvature at the soup towards each member.

    .. math:: \\frac1N \\sum_i f(\\bar\\theta + \\delta_i) - f(\\bar\\theta)
              \\approx \\frac{1}{2N} \\sum_i
              \\frac{f(\\bar\\theta + h\\,\\delta_i) - 2 f(\\bar\\theta) + f(\\bar\\theta - h\\,\\delta_i)}{h^2}

    with f the logits of an image and :math:`\\delta_i` the way from the soup to member i; first
    derivatives cancel because these sum to zero. BatchNorm's running statistics count as weights here.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode; left as it was.
    members : sequence of dict of str to Tensor
        At least one.
    images : Tensor, shape (sample, channel, height, width)
        Normalised. Their dtype is the one that all is computed in: a small step needs float64.
    step : float
        The h of the formula, in (0, 1]. A small one gives the second derivative at the soup itself, which sees
        no unit of a ReLU network switch on or off; one half sees those that switch within half the way.

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
    if not 0 < step <= 1:
        raise ProbeError(
            "cannot measure curvature",
            item="step",
            got=repr(step),
            wanted="a number in (0, 1]",
            fix="Pass a share of the way from the soup to a member.",
        )
    like = images.device, images.dtype
    wide = [{key: tensor.to(*like) for key, tensor in m.items() if tensor.is_floating_point()} for m in members]
    centre = {key: sum(member[key] for member in wide) / len(wide) for key in wide[0]}

    def logits(member, way):
        state = {key: centre[key] + way * (member[key] - centre[key]) for key in centre}
        for key in state:
            if key.endswith("running_var"):  # on the far side of the soup a variance can fall below 0
                state[key] = state[key].clamp_min(0)
        return functional_call(model, state, (images,))

    with eval_mode(model), torch.no_grad():
        middle = logits(centre, 0)
        bends = [(logits(member, step) - 2 * middle + logits(member, -step)) / step**2 for member in wide]
    return sum(bends) / (2 * len(wide))
