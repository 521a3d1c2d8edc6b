"""The running average: the mean of one model's weights along its training, kept while it trains."""

import json

import torch

from ..errors import CheckpointError
from .members import check_finite, check_layout, checked_state, refuse, strip_prefixes, tied_keys
from .sums import cast, weighted_sum

__all__ = ["RunningAverage"]


class RunningAverage:
    """Average the weights that one model has at several moments of its training.

    Without a decay it is the equal mean of everything seen (stochastic weight
    averaging), with a decay :math:`d` the exponential moving average:

    .. math:: \\theta^{SWA}_n = \\frac1n \\sum_{k=1}^n \\theta_k,
        \\qquad \\theta^{EMA}_n = d\\,\\theta^{EMA}_{n-1} + (1 - d)\\,\\theta_n,
        \\quad \\theta^{EMA}_1 = \\theta_1

    Kept in float64, whatever the dtype of the weights: in bfloat16 or float16 a step of
    ``(1 - d)`` of a small difference rounds to nothing and the average stands still.

    Parameters
    ----------
    decay : float or None
        None for the equal mean; in [0, 1) for the exponential one. At decay d it
        looks back over about ``1 / (1 - d)`` updates.
    every : {"epoch", "step"}
        When `wamlib.train.train` updates it: after each epoch, as is usual for the
        equal mean, or after each step of the optimizer, as is usual for the
        exponential one. Without `wamlib.train.train` it says nothing.

    Attributes
    ----------
    count : int
        Updates so far.

    Raises
    ------
    MergeError
        If ``decay`` or ``every`` is unusable.

    Notes
    -----
    BatchNorm's running statistics are averaged like weights. They are *not* those of the
    averaged model's own activations: see `recalibrate_batchnorm`.

    References
    ----------
    Izmailov et al. (2018), Averaging Weights Leads to Wider Optima, Section 3.1. https://arxiv.org/abs/1803.05407
    Polyak & Juditsky (1992), Acceleration of Stochastic Approximation by Averaging. https://doi.org/10.1137/0330046
    Tarvainen & Valpola (2017), Mean Teachers, Section 2. https://arxiv.org/abs/1703.01780
    """

    def __init__(self, decay=None, every="epoch"):
        number = isinstance(decay, (int, float)) and not isinstance(decay, bool)
        if decay is not None and not (number and 0 <= decay < 1):
            _refuse("decay", repr(decay), "None, or a number in [0, 1)")
        if every not in ("epoch", "step"):
            _refuse("every", repr(every), "'epoch' or 'step'")
        self.decay, self.every, self.count = decay, every, 0
        self._layout = {}  # key -> a tensor without memory that has the dtype, shape and device of the latest
        self._tied = {}  # key -> the earlier key that shares its memory
        self._kept = {}  # key -> sum or average in float64; the latest tensor if it is an integer one

    def update(self, model):
        """Take in the present weights, which are copied.

        Parameters
        ----------
        model : torch.nn.Module or dict of str to Tensor
            With the keys, shapes and dtypes of the first update.

        Returns
        -------
        RunningAverage
            Itself.

        Raises
        ------
        MemberMismatchError
            If keys, shapes, dtypes or tied tensors differ from those of the first update.
        NonFiniteMemberError
            If a weight is NaN or infinite.
            After either error the average is what it was before.
        """
        state = model.state_dict() if isinstance(model, torch.nn.Module) else model
        state = strip_prefixes(checked_state(state, f"update {self.count}"))
        if self.count:
            check_layout(state, self._layout, f"update {self.count}", "update 0")
        check_finite(state, f"update {self.count}")
        if self.count == 0:
            self._tied = tied_keys([state])
        elif self._tied:
            # As two members: the ties of the first update stand for the first, in tensors without memory of their own.
            tied_keys([{key: state[self._tied.get(key, key)] for key in state}, state])
        for key, tensor in state.items():
            if key not in self._tied:
                self._kept[key] = self._next(self._kept.get(key), tensor)
        self._layout = {key: _like(tensor) for key, tensor in state.items()}
        self.count += 1
        return self

    def _next(self, kept, tensor):
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor.detach().clone()
        wide = weighted_sum([tensor], [1.0])
        if kept is None:
            return wide
        kept = kept.to(wide.device)
        if self.decay is None:
            return kept.add_(wide)  # the sum: dividing once, in state(), makes it the uniform soup to the bit
        return kept.add_(wide.sub_(kept), alpha=1 - self.decay)

    def state(self):
        """Return the averaged weights.

        Returns
        -------
        dict of str to Tensor
            Each tensor in the dtype and on the device of the latest update, rounded once.
            Integer and boolean tensors (step counters) are those of the latest update;
            what was tied is tied.

        Raises
        ------
        MergeError
            If there was no update.
        """
        if self.count == 0:
            _refuse("the average", "no update", "at least one")
        state = {}
        for key, like in self._layout.items():
            kept = self._kept[self._tied.get(key, key)]
            if key in self._tied:
                state[key] = state[self._tied[key]]
            elif not (kept.is_floating_point() or kept.is_complex()):
                state[key] = kept.clone()
            else:
                state[key] = cast(kept / self.count if self.decay is None else kept.clone(), like)
        return state

    def dump(self):
        """Return everything that is needed to go on later, as copies in a dict of str to Tensor.

        The tensors share no memory and can be written with safetensors; `restore` and `load`
        read them.
        """
        notes = {
            "decay": self.decay,
            "every": self.every,
            "count": self.count,
            # JSON, because safetensors sorts its keys and the order of a state dict is worth keeping.
            "layout": [
                [key, str(like.dtype), list(like.shape), self._tied.get(key)] for key, like in self._layout.items()
            ],
        }
        text = torch.frombuffer(bytearray(json.dumps(notes).encode()), dtype=torch.uint8)
        return {"notes": text, **{f"kept/{key}": kept.clone().contiguous() for key, kept in self._kept.items()}}

    def load(self, dump):
        """Replace this average by a dumped one, its decay included.

        Raises
        ------
        CheckpointError
            If this is not what `dump` returned. The average is then unchanged.
        """
        try:
            notes = json.loads(bytes(dump["notes"].cpu().tolist()))
            read = RunningAverage(notes["decay"], notes["every"])
            read.count = notes["count"]
            for key, dtype, shape, tied in notes["layout"]:
                kept = dump[f"kept/{tied or key}"]
                dtype = getattr(torch, dtype.removeprefix("torch."))
                read._layout[key] = _like(torch.empty((), dtype=dtype, device=kept.device).expand(shape))
                if tied is None:
                    read._kept[key] = kept.clone()
                else:
                    read._tied[key] = tied
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            got, wanted = f"something else ({type(error).__name__}: {error})", "what RunningAverage.dump returned"
            doing, fix = "cannot restore a running average", "Start the average anew."
            raise CheckpointError(doing, item="the dump", got=got, wanted=wanted, fix=fix) from error
        vars(self).update(vars(read))
        return self

    @classmethod
    def restore(cls, dump):
        """Return the average that was dumped; errors as `load`."""
        return cls().load(dump)

    def __repr__(self):
        return f"RunningAverage(decay={self.decay}, every={self.every!r}): {self.count} update(s)"


def _like(tensor):
    """Return a tensor of the same shape, dtype and device that holds one value's memory."""
    return torch.empty((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def _refuse(item, got, wanted):
    refuse(item, got, wanted, "Correct the arguments or update first.", "cannot keep a running average")
