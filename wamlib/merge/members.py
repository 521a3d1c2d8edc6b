"""What makes state dicts members of one pool: their keys, shapes, dtypes, ties and finiteness."""

import warnings
from collections.abc import Iterable, Mapping

import torch

from ..errors import MemberMismatchError, MergeError, NonFiniteMemberError
from .sums import n_not_finite

__all__ = ["STATISTICS", "check_members", "is_learnable", "strip_prefixes", "tied_keys"]

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
PREFIXES = ("module.", "_orig_mod.")


def is_learnable(key):
    """Return whether a key of a state dict names a learnable tensor, not a running statistic of BatchNorm.

    A state dict does not say what is a parameter and what is a buffer; the names of
    BatchNorm's buffers are the only ones known to need other treatment.
    """
    return key.rpartition(".")[2] not in STATISTICS


def has_delta(key, tensor):
    """Return whether a tensor has a task vector: learnable, and of real numbers."""
    return is_learnable(key) and tensor.is_floating_point()


def strip_prefixes(state, item="a member"):
    """Remove the prefixes that wrappers put before every key.

    Parameters
    ----------
    state : dict of str to Tensor
    item : str
        What to call it in the notice.

    Returns
    -------
    dict of str to Tensor
        The same tensors; ``module.`` (DataParallel) and ``_orig_mod.`` (torch.compile)
        are gone if every key had them. The same object if there was nothing to strip.

    Warns
    -----
    UserWarning
        A notice that says what was stripped.
    """
    stripped = ""
    while state and any(all(key.startswith(prefix) for key in state) for prefix in PREFIXES):
        prefix = next(prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state))
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
        stripped += prefix
    if stripped:
        warnings.warn(f"stripped the prefix {stripped!r} from every key of {item}", stacklevel=2)
    return state


def prepared(members):
    """Return the members as a list, prefixes stripped and checked."""
    if isinstance(members, (str, Mapping)) or not isinstance(members, Iterable):
        _refuse_kind("the members", members, "a list of state dicts")
    members = [strip_prefixes(checked_state(member, f"member {index}")) for index, member in enumerate(members)]
    check_members(members)
    return members


def checked_state(state, item):
    """Return a state dict; refuse anything else."""
    if not isinstance(state, Mapping):
        _refuse_kind(item, state, "a state dict")
    for key, tensor in state.items():
        if not (isinstance(key, str) and isinstance(tensor, torch.Tensor)):
            _refuse_kind(f"{item}, {key!r}", tensor, "a tensor under a name")
    return state


def _refuse_kind(item, got, wanted):
    refuse(item, f"a {type(got).__name__}", wanted, "Pass the members as a list of model.state_dict().")


def tied_keys(members):
    """Map each key that shares its memory with an earlier key, in any member, to that key.

    Raises
    ------
    MemberMismatchError
        If the two tensors are tied in one member and differ in another.
    """
    tensors = [{key: member[key] for key in members[0]} for member in members]
    names = [f"member {index}" for index in range(len(members))]
    return find_ties(tensors, names, lambda index, key, first: torch.equal(members[index][key], members[index][first]))


def find_ties(tensors, names, equal):
    """Return what `tied_keys` does, given each member's tensors that lie in memory, and what compares two of them."""
    pairs = {}
    for member in tensors:
        pairs |= dict.fromkeys(sharing(member))
    for key, first in pairs:
        for index, name in enumerate(names):
            if not equal(index, key, first):
                got = f"values that differ from those of {first!r}"
                wanted = "equal ones, because another member ties the two"
                fix = "Members must share the architecture, its tied weights included."
                raise MemberMismatchError(f"cannot merge {key!r}", item=name, got=got, wanted=wanted, fix=fix)
    return dict(reversed(pairs))


def sharing(tensors):
    """Return the pairs (key, earlier key) of tensors that are the same memory, read in the same way."""
    pairs, seen = [], {}
    for key, tensor in tensors.items():
        if tensor.numel():
            place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            first = seen.setdefault(place, key)
            if first != key:
                pairs.append((key, first))
    return pairs


def merge_by_key(members, merge):
    """Return ``{key: merge(key)}``; each tied tensor is merged once and stays tied."""
    tied, merged = tied_keys(members), {}
    for key in members[0]:
        merged[key] = merged[tied[key]] if key in tied else merge(key)
    return merged


def check_members(members):
    """Refuse members that cannot be averaged with each other.

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`.
    """
    if not members:
        refuse("the list of members", "no member", "at least one", "Pass the state dicts of the members.")
    for index, member in enumerate(members):
        check_layout(member, members[0], f"member {index}", "member 0")
        check_finite(member, f"member {index}")


def check_finite(member, item):
    """Refuse a member that holds NaN or infinity."""
    for key, tensor in member.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and (n_values := n_not_finite(tensor)):
            refuse_non_finite(key, item, n_values)


def check_layout(member, first, item, reference):
    """Refuse a member whose keys, shapes or dtypes differ from those of the first.

    Parameters
    ----------
    member, first : dict
        From keys to anything with a ``shape`` and a ``dtype``.
    item, reference : str
        What to call the two in the message.
    """
    differ = sorted(first.keys() ^ member.keys())
    if differ:
        which = "lacks" if differ[0] in first else f"has, and {reference} lacks,"
        got = f"{len(differ)} key(s) that differ from those of {reference}: it {which} {differ[0]!r}"
        wanted, fix = "the same keys in every member", "Were they built from the same model and number of classes?"
        raise MemberMismatchError("cannot merge", item=item, got=got, wanted=wanted, fix=fix)
    for key, tensor in member.items():
        for what in ("shape", "dtype"):
            got, wanted = getattr(tensor, what), getattr(first[key], what)
            if got != wanted:
                got, wanted = (tuple(x) if what == "shape" else x for x in (got, wanted))
                got, wanted = f"{what} {got}", f"{wanted}, as in {reference}"
                fix = "Members must share the architecture, its width and the dtype."
                raise MemberMismatchError(f"cannot merge {key!r}", item=item, got=got, wanted=wanted, fix=fix)


def refuse_non_finite(key, item, n_values):
    """Raise the error for a member with NaN or infinity."""
    got = f"{n_values} value(s) that are NaN or infinite"
    fix = "Leave this member out, or train it again with a lower learning rate."
    raise NonFiniteMemberError(f"cannot merge {key!r}", item=item, got=got, wanted="finite weights", fix=fix)


def refuse(item, got, wanted, fix="Correct the argument.", doing="cannot merge"):
    """Raise the error for an argument that has no meaning."""
    raise MergeError(doing, item=item, got=got, wanted=wanted, fix=fix) from None
