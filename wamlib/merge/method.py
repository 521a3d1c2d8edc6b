"""What all methods have in common: settings, what they measure first, and a merge of one piece after the other."""

from .members import has_delta, refuse
from .sources import Loaded
from .sums import cast, weighted_sum

__all__ = ["Method", "OfDeltas", "carry_out", "check_pair", "in_memory"]


class Method:
    """A way of merging, with settings that are checked when it is made, before a member is read.

    A subclass takes the number of members and its settings, and says what becomes of a piece
    of the weights. The same steps serve state dicts and files, so that both give the same bits.

    Attributes
    ----------
    source : Source
        What is merged, from `start` on.
    needs_base : bool
    in_order : bool
        Whether the pieces of one tensor have to be merged one after the other.
    others : str or None
        What becomes of running statistics; None if they are merged as weights are.
    """

    needs_base, in_order, others = False, False, "mean"

    def start(self, source):
        """Take what is merged, and measure what has to be known of whole tensors."""
        self.source = source

    def merge(self, piece):
        """Return the merged values of a piece; of integers and booleans the first member's."""
        entry = self.source.entries[piece.key]
        if not self.source.is_averaged(piece.key):
            return self.source.members[0].read(*piece).to(entry.device, copy=True)
        return cast(self.weights(piece) if has_delta(piece.key, entry) else self.statistics(piece), entry)

    def statistics(self, piece):
        """Return the equal mean of a piece without a task vector, so that no variance becomes negative."""
        n = len(self.source.members)
        mean = self.source.mean(piece, [1.0] * n).div_(n)
        if self.source.base is not None:  # it takes no part, but a damaged one says that something is wrong
            self.source.check_finite(piece, self.source.base.read(*piece))
        return mean

    def again(self):
        """Return the pieces that the result of all the others changes, which are to be merged once more."""
        return []


class OfDeltas(Method):
    """A method that adds a change, made of the task vectors, to the base."""

    needs_base = True
    factor = 1.0  # of the change

    def weights(self, piece):
        """Return base + factor * change, summed in float64."""
        change = self.change(piece)
        self.source.check_finite(piece, change)
        return weighted_sum([self.source.base.read(*piece), change], [1.0, self.factor])


def carry_out(method, write):
    """Merge all pieces, and hand each of them with its values to a function, in several threads if in files."""
    source = method.source

    def merge(pieces):
        for piece in pieces:
            write(piece, method.merge(piece))

    keys = source.merged_keys()
    # One item is what one thread does in order.
    work = [source.pieces([key]) for key in keys] if method.in_order else [[piece] for piece in source.pieces(keys)]
    source.run("merging", merge, work, lambda pieces: sum(piece.size for piece in pieces))
    merge(method.again())


def in_memory(method, members, *base, **settings):
    """Return the merge of state dicts, and of a base, by a kind of `Method`; what is tied stays tied."""
    source = Loaded(members, *base)
    method = method(len(source.members), **settings)
    method.start(source)
    merged = {}

    def write(piece, values):
        merged[piece.key] = values.view(source.entries[piece.key].shape)

    carry_out(method, write)
    return {key: merged[owner] for key, owner in source.owners.items()}


def check_pair(n_members):
    """Refuse another number of members than two."""
    if n_members != 2:
        fix = "Pass two files, or choose another method."
        refuse("the members", f"{n_members}", "two: a line has two ends", fix)
