"""Which weights move together when the units of a layer are put in another order: read off the traced network.

A value that flows through the network has a channel axis. It is described by
segments, ``(group, width)``, where a group is a set of units that must be permuted
alike; the layers that write and read a value pass that description on.
"""

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ..errors import AlignmentError

__all__ = ["Specification", "trace"]

FIXED = -1  # the group of what must keep its order: the channels of images, and logits

SMOOTH = (nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus)
KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh)
SAME = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.Upsample)
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool2d)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
POINTWISE_MODULES = (*SMOOTH, *KINKED, *SAME, *MAXIMA, *AVERAGES, *ADAPTIVE)
POINTWISE_FUNCTIONS = {F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid}
POINTWISE_FUNCTIONS |= {F.softplus, F.dropout, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.interpolate}
POINTWISE_FUNCTIONS |= {F.adaptive_max_pool2d, F.sigmoid, F.tanh, torch.relu, torch.sigmoid, torch.tanh}
POINTWISE_FUNCTIONS |= {torch.clone, operator.neg}
POINTWISE_METHODS = {"relu", "relu_", "sigmoid", "tanh", "contiguous", "clone", "float", "to", "clamp"}
JOINING = {operator.add, operator.iadd, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv}
JOINING |= {torch.add, torch.sub, torch.mul, torch.div}
JOINING_METHODS = {"add", "add_", "sub", "mul", "mul_", "div"}


@dataclass(frozen=True)
class Specification:
    """How a network's units are permuted.

    Parameters
    ----------
    sizes : dict of int to int
        Group of units to its number of units.
    axes : dict of str to dict
        Key of the state dict to ``{axis: segments}``; a segment is (group, width, block),
        where each of ``width`` units takes ``block`` places in a row.
    readers : dict of int to list
        Group to the (graph node, segments) at whose values it is read by a layer.
    graph : torch.fx.GraphModule
    """

    sizes: dict
    axes: dict
    readers: dict
    graph: fx.GraphModule


def trace(model):
    """Return the `Specification` of a model, derived from its traced graph.

    Raises
    ------
    AlignmentError
        If the model cannot be traced, or has an operation whose effect on units is not known.
    """
    try:
        graph = fx.symbolic_trace(model)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        got, wanted = f"{type(error).__name__}: {error}", "a forward pass without control flow on values"
        fix = "Pass a model that torch.fx can trace."
        raise AlignmentError("cannot trace the model", type(model).__name__, got, wanted, fix) from error
    return _Tracer(graph).specification()


class _Tracer:
    """Walks the graph once, and unites groups that turn out to be one."""

    def __init__(self, graph):
        self.graph, self.modules = graph, dict(graph.named_modules())
        self.parent, self.width = {FIXED: FIXED}, {}
        self.axes, self.values, self.reads = {}, {}, []

    def specification(self):
        for node in self.graph.graph.nodes:
            getattr(self, node.op)(node)
        axes = {
            key: {axis: [(self.find(g), width, block) for g, width, block in segments] for axis, segments in by.items()}
            for key, by in self.axes.items()
        }
        sizes = {g: w for g, w in self.width.items() if self.find(g) == g != FIXED}
        readers = {group: [] for group in sizes}
        for node, segments in self.reads:
            segments = [(self.find(g), width, block) for g, width, block in segments]
            for group in {g for g, _, _ in segments} - {FIXED}:
                readers[group].append((node, segments))
        return Specification(sizes, axes, readers, self.graph)

    # groups

    def new(self, width):
        group = len(self.parent)
        self.parent[group], self.width[group] = group, width
        return group

    def find(self, group):
        while self.parent[group] != group:
            group = self.parent[group]
        return group

    def unite(self, a, b):
        a, b = sorted((self.find(a), self.find(b)))  # FIXED is the smallest
        if a != b:
            self.parent[b] = a

    def pin(self, segments):
        for group, _ in segments:
            self.unite(group, FIXED)

    def join(self, node, a, b):
        """Unite two descriptions of one axis, segment by segment."""
        if [width for _, width in a] == [width for _, width in b]:
            for (x, _), (y, _) in zip(a, b, strict=True):
                self.unite(x, y)
            return a
        if sum(w for _, w in a) != sum(w for _, w in b):
            self.refuse(node, "values of different widths", "values of one width")
        # One side is a concatenation and the other is not: correct with every unit in its place.
        self.pin(a)
        self.pin(b)
        return a

    # nodes of the graph

    def placeholder(self, node):
        self.values[node] = None  # the image: its channels keep their order, whatever their number

    def get_attr(self, node):
        self.refuse(node, "a bare parameter in the forward pass", "layers")

    def output(self, node):
        for value in node.all_input_nodes:
            if self.values.get(value):
                self.pin(self.values[value])

    def call_module(self, node):
        module, value = self.modules[node.target], node.args[0] if node.args else next(iter(node.kwargs.values()))
        segments = self.values[value]
        if isinstance(module, (_ConvNd, nn.Linear)):
            self.values[node] = self.layer(node, module, value, segments)
        elif isinstance(module, _BatchNorm) or (isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1):
            size = module.num_features if isinstance(module, _BatchNorm) else module.normalized_shape[0]
            for name, _ in [*module.named_parameters(), *module.named_buffers()]:
                if name != "num_batches_tracked":
                    self.note(node, f"{node.target}.{name}", 0, segments, size)
            self.values[node] = segments
        elif isinstance(module, (nn.Flatten, *POINTWISE_MODULES)):
            if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
                self.refuse(node, repr(module), "Flatten() from axis 1 on")
            self.values[node] = segments
        else:
            self.refuse(node, f"a {type(module).__name__}", "convolution, linear, BatchNorm, or what acts unit by unit")

    def call_function(self, node):
        if node.target in (getattr, operator.getitem):  # shapes; a tensor that is cut up is no shape
            if node.target is operator.getitem and self.values[node.args[0]] is not None:
                self.refuse(node, "a value that is indexed", "whole values")
            self.values[node] = None
            return
        if node.target in JOINING:
            self.values[node] = self.joined(node)
        elif node.target in (torch.cat, torch.concat):
            parts, dim = node.args[0], node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
            if dim not in (1, -3) or any(self.values[part] is None for part in parts):
                self.refuse(node, f"a concatenation along axis {dim}", "one of channels, axis 1")
            self.values[node] = [segment for part in parts for segment in self.values[part]]
        elif node.target in POINTWISE_FUNCTIONS or self.keeps_units(node):
            self.values[node] = self.values[node.args[0]]
        else:
            name = getattr(node.target, "__name__", node.target)
            self.refuse(node, f"the function {name}", "one that acts unit by unit")

    def call_method(self, node):
        if node.target in ("size", "dim"):
            self.values[node] = None
        elif node.target in JOINING_METHODS:
            self.values[node] = self.joined(node)
        elif node.target in POINTWISE_METHODS or self.keeps_units(node):
            self.values[node] = self.values[node.args[0]]
        else:
            self.refuse(node, f"the method {node.target}", "one that acts unit by unit")

    def keeps_units(self, node):
        """Return whether a call flattens from axis 1 on, or averages over positions."""
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        rest = [*node.args[1:], *node.kwargs.values()]
        if name == "flatten":
            return rest in ([1], [1, -1])
        if name in ("view", "reshape"):
            shape = rest[0] if len(rest) == 1 and isinstance(rest[0], (tuple, list)) else rest
            return len(shape) == 2 and shape[1] == -1
        if name in ("mean", "amax"):
            dims = rest[0] if isinstance(rest[0], (tuple, list)) else [rest[0]]
            return all(dim in (2, 3, -1, -2) for dim in dims)
        return False

    def joined(self, node):
        known = [arg for arg in node.args[:2] if isinstance(arg, fx.Node)]
        if len(known) == 1:
            return self.values[known[0]]
        a, b = (self.values[arg] for arg in known)
        if a is None or b is None:
            self.pin(a or b or [])
            return None
        return self.join(node, a, b)

    # layers

    def layer(self, node, module, value, segments):
        """A layer with weights: reads the units of its input, and writes units of its own."""
        key = f"{node.target}.weight"
        outputs, inputs = module.weight.shape[:2]
        if isinstance(module, _ConvNd) and module.transposed:
            self.refuse(node, "a transposed convolution", "an ordinary one")
        groups = getattr(module, "groups", 1)
        if groups > 1 and groups == outputs == module.in_channels and segments:
            written = segments  # depthwise: each unit has a filter of its own
        else:
            if groups > 1:
                self.pin(segments or [])
            elif segments:
                self.reads.append((value, self.note(node, key, 1, segments, inputs)))
            written = [(self.new(outputs) if groups == 1 else FIXED, outputs)]
            # A layer that is called twice writes the same units both times.
            for old in self.axes.get(key, {}).get(0, ()):
                self.unite(old[0], written[0][0])
        self.note(node, key, 0, written, outputs)
        if module.bias is not None:
            self.note(node, f"{node.target}.bias", 0, written, outputs)
        return written

    def note(self, node, key, axis, segments, length):
        """Record what an axis of a weight consists of; one that was recorded before must agree."""
        if segments is None:
            return None
        total = sum(width for _, width in segments)
        if not total or length % total:
            self.refuse(node, f"{total} units before an axis of {length}", "a whole number of places per unit")
        found = [(group, width, length // total) for group, width in segments]
        old = self.axes.setdefault(key, {}).setdefault(axis, found)
        if old is not found:
            self.join(node, [segment[:2] for segment in old], segments)
        return found

    def refuse(self, node, got, wanted):
        fix = "Align a model made of these; see wamlib.align.graph for what is known."
        raise AlignmentError("cannot permute the units of the model", f"node {node.name!r}", got, wanted, fix)
