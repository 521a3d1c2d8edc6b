"""The merges of the papers once more, in plain numpy float64, sharing no code with wamlib.

State dicts of tensors come in, dicts of arrays go out. ``merged_deltas`` lays out what all have in
common: which tensors have a task vector, what is averaged, what is copied, and what a scope is.
"""

import copy
import hashlib
import itertools

import numpy as np
import torch

STATISTICS = ("running_mean", "running_var")


def arrays(state):
    return {key: np.asarray(t.double() if t.is_floating_point() else t) for key, t in state.items()}


def merged_deltas(base, members, scope, merge):
    """Add ``merge(deltas)`` to the base, where deltas has one row per member, for all tensors at once or each."""
    base, members = arrays(base), [arrays(member) for member in members]
    out = {key: first.copy() for key, first in members[0].items()}
    floats = [key for key, first in out.items() if first.dtype == np.float64]
    weights = [key for key in floats if not key.endswith(STATISTICS)]
    for key in set(floats) - set(weights):
        out[key] = np.mean([member[key] for member in members], axis=0)
    for group in [weights] if scope == "global" else [[key] for key in weights]:
        flat = [np.concatenate([state[key].ravel() for key in group]) for state in [base, *members]]
        rest = flat[0] + merge(np.stack([row - flat[0] for row in flat[1:]]))
        for key in group:
            out[key], rest = rest[: base[key].size].reshape(base[key].shape), rest[base[key].size :]
    return out


def uniform(members):
    return merged_deltas(members[0], members, "tensor", lambda deltas: deltas.mean(0))


def ema(members, decay):
    """Fold the members into the first one: state = decay * state + (1 - decay) * member."""
    states = [arrays(member) for member in members]
    out = states[0]
    for state in states[1:]:
        out = {k: decay * v + (1 - decay) * state[k] if v.dtype == np.float64 else v for k, v in out.items()}
    return out


def task_arithmetic(base, members, scale):
    return merged_deltas(base, members, "tensor", lambda deltas: scale * deltas.sum(0))


def ties(base, members, density, scale=1.0, scope="global", one_more=0):
    """Trim, elect, average. ``one_more=1`` keeps one entry more, as the authors' code does."""

    def merge(deltas):
        trimmed, n_kept = np.zeros_like(deltas), min(int(density * deltas.shape[1]) + one_more, deltas.shape[1])
        if n_kept:
            smallest_kept = -np.sort(-np.abs(deltas), axis=1)[:, n_kept - 1 : n_kept]
            trimmed = np.where(np.abs(deltas) >= smallest_kept, deltas, 0)
        sign = np.sign(trimmed.sum(0))
        # A sum of 0: the majority of the signs, or plus in the tools that work per tensor. The authors' code
        # takes whatever is not plus after that as minus.
        sign[sign == 0] = np.sign(sign.sum()) if scope == "global" else 1
        agreeing = np.where(sign > 0, trimmed > 0, trimmed < 0)
        return scale * (trimmed * agreeing).sum(0) / np.maximum(1, agreeing.sum(0))

    return merged_deltas(base, members, scope, merge)


def dare_mask(density, seed, key, index, n):
    digest = hashlib.sha256(f"{seed}/{index}/{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") // 2)
    return torch.rand(n, dtype=torch.float64, generator=generator) < density


def dare(base, members, density, seed, scale=1.0):
    """Keep the entries of the seeded masks, divide by the density, average."""
    states = []
    for index, member in enumerate(members):
        state = dict(member)
        for key, tensor in member.items():
            if tensor.is_floating_point() and not key.endswith(STATISTICS):
                mask = dare_mask(density, seed, key, index, tensor.numel()).view(tensor.shape)
                start = base[key].double()
                state[key] = start + (tensor.double() - start) * mask / density
        states.append(state)
    return merged_deltas(base, states, "tensor", lambda deltas: scale * deltas.mean(0))


def slerp(a, b, alpha, scope="global"):
    """Go along the arc; the statistics, and what has no one arc, along the line."""
    zero = {key: torch.zeros_like(tensor) for key, tensor in a.items()}

    def merge(rows):
        x, y = rows
        norms = np.linalg.norm(x) * np.linalg.norm(y)
        angle = np.arccos(np.clip(x @ y / norms, -1, 1)) if norms else 0.0
        if min(angle, np.pi - angle) < 1e-6:
            return (1 - alpha) * x + alpha * y
        return (np.sin((1 - alpha) * angle) * x + np.sin(alpha * angle) * y) / np.sin(angle)

    out = merged_deltas(zero, [a, b], scope, merge)
    for key in out:
        if key.endswith(STATISTICS):
            out[key] = (1 - alpha) * arrays(a)[key] + alpha * arrays(b)[key]
    return out


def model_stock(base, members):
    def merge(deltas):
        cosines = []
        for x, y in itertools.combinations(deltas, 2):
            norms = np.linalg.norm(x) * np.linalg.norm(y)
            cosines.append(x @ y / norms if norms else 0.0)
        cosine, n = max(0.0, np.mean(cosines)), len(deltas)
        return n * cosine / (1 + (n - 1) * cosine) * deltas.mean(0)

    return merged_deltas(base, members, "tensor", merge)


def eighths(seed, dtype=torch.float32, spread=16):
    """A state dict of every kind of tensor, with values k/8: differences and sums of them are exact in any dtype."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randint(-spread, spread + 1, shape, generator=generator).div(8).to(dtype)

    return {
        "conv.weight": draw(4, 3, 2, 2),
        "norm.weight": draw(4),
        "norm.running_mean": draw(4),
        "norm.running_var": draw(4).abs() + 0.125,
        "norm.num_batches_tracked": torch.tensor(10 + seed),
        "mask": torch.tensor([seed % 2 == 0, True]),
        "scale": draw(),
        "none": draw(0, 3),
        "head.weight": draw(3, 5),
    }


def fine_tuned(base, seed, spread=12):
    """A member: the base with eighths added to every floating tensor, and other counters."""
    change = eighths(seed, torch.float64, spread)
    moved = {key: (t.double() + change[key]).to(t.dtype) for key, t in base.items() if t.is_floating_point()}
    variance = base["norm.running_var"] + change["norm.running_var"].to(base["norm.running_var"].dtype)
    return {**change, **moved, "norm.running_var": variance}


def assert_equals(state, reference):
    """The state is the reference, rounded to each tensor's own dtype, to one ulp; in float64 to 1e-13."""
    assert list(state) == list(reference)
    for key, tensor in state.items():
        eps = max(1e-13, torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else 0
        wanted = torch.as_tensor(reference[key])
        assert tensor.shape == wanted.shape, key
        torch.testing.assert_close(
            tensor.double(), wanted.double(), rtol=eps, atol=min(1e-13, eps), msg=lambda text, key=key: f"{key}: {text}"
        )


def fisher(members, diagonals, weights, floor):
    states, out = [arrays(member) for member in members], {}
    for key, first in states[0].items():
        infos = [np.full(first.shape, 1.0)] * len(states)
        if key in diagonals[0]:
            infos = [np.maximum(np.asarray(diagonal[key].double()), floor) for diagonal in diagonals]
        infos = [weight * info for weight, info in zip(weights, infos, strict=True)]
        total = np.sum([info * state[key] for info, state in zip(infos, states, strict=True)], axis=0)
        out[key] = total / np.sum(infos, axis=0) if first.dtype == np.float64 else first
    return out


def fisher_diagonal(model, images):
    """One image, one class, one backward pass at a time, in float64."""
    model = copy.deepcopy(model).double().eval()
    parameters = dict(model.named_parameters())
    out = {key: torch.zeros_like(tensor) for key, tensor in parameters.items()}
    for image in images.double():
        logs = model(image[None]).log_softmax(1)[0]
        for log in logs:
            slopes = torch.autograd.grad(log, list(parameters.values()), retain_graph=True)
            for key, slope in zip(parameters, slopes, strict=True):
                out[key] += log.exp().detach() * slope**2 / len(images)
    return out


def regmean(members, grams, shrink):
    """Per layer and group, the explicit inverse."""
    states, out = [arrays(member) for member in members], {}
    for key, first in states[0].items():
        out[key] = np.mean([state[key] for state in states], axis=0) if first.dtype == np.float64 else first
        if key in grams[0]:
            groups = len(grams[0][key])
            per_group = []
            for group in range(groups):
                left, right = 0, 0
                for state, gram in zip(states, grams, strict=True):
                    g = np.asarray(gram[key][group].double())
                    g = shrink * g + (1 - shrink) * np.diag(np.diag(g))
                    rows = np.split(state[key].reshape(len(first), -1), groups)[group]
                    left, right = left + rows @ g, right + g
                per_group.append(left @ np.linalg.inv(right))
            out[key] = np.concatenate(per_group).reshape(first.shape)
    return out


def mixed(members, shares):
    """The weighted mean with shares of its own per tensor; what has none is the first member's."""
    states = [arrays(member) for member in members]
    return {
        key: sum(share * state[key] for share, state in zip(shares[key], states, strict=True))
        if key in shares
        else first
        for key, first in states[0].items()
    }
