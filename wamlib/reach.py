"""What code a function runs: the definitions that it reaches by name, without comments, docstrings and errors."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

__all__ = ["imports", "path_of", "version"]

PACKAGE = Path(__file__).parent
# What objects are made of, whoever hands them over: a measure is given a pool and calls its methods.
ALWAYS = (("wamlib.pools", "Pool"),)
# Parts of a syntax tree that change nothing about what is computed.
IDLE = ("type_comment", "kind", "ctx", "returns", "annotation", "type_params")


def version(function):
    """Return a digest of the code that a function runs.

    Followed are names: of definitions in the function's own module and, through imports, in other modules of this
    package. A method that is called on an argument is not, but the classes of `ALWAYS` are. Comments, docstrings,
    annotations and `raise` statements do not count, so that an edit of words changes nothing.

    Parameters
    ----------
    function : callable
        Defined at the top of a module of this package.

    Returns
    -------
    str
        12 hexadecimal digits, the same for every version of Python.
    """
    return _version(function.__module__, function.__name__)


@cache
def _version(module, name):
    found = {}
    for start in ((module, name), *ALWAYS):
        _follow(*start, found)
    text = json.dumps([[*place, found[place]] for place in sorted(found)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def imports(module):
    """Return the modules of this package that a module imports, directly or not, itself included.

    Parameters
    ----------
    module : str
        Such as "wamlib.chapters.members".

    Returns
    -------
    dict of str to str
        Name of each module to a digest of its code without comments, docstrings and annotations, sorted.
    """
    found, ahead = {}, [module]
    while ahead:
        name = ahead.pop()
        if name not in found and path_of(name) is not None:
            found[name], brought = _read(name)
            ahead += brought
    return dict(sorted(found.items()))


@cache
def _read(module):
    """Return a digest of a module's code, and the modules that it imports."""
    tree, is_package = _parsed(module)
    brought = set()
    for node in ast.walk(tree):
        for target in _targets(node, module, is_package).values():
            brought |= {target} if isinstance(target, str) else {target[0], ".".join(target)}
    return hashlib.sha256(json.dumps(_plain(tree)).encode()).hexdigest()[:12], brought


def path_of(module):
    """Return the file of a module of this package, or None."""
    parts = module.split(".")
    if parts[0] != "wamlib":
        return None
    place = PACKAGE.joinpath(*parts[1:])
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file() and (len(parts) > 1 or path.name == "__init__.py"):
            return path
    return None


@cache
def _parsed(module):
    path = path_of(module)
    return ast.parse(path.read_text("utf-8")), path.name == "__init__.py"


def _targets(node, module, is_package):
    """Return what an import statement brings: name to module, or to (module, name); other packages are left out."""
    if isinstance(node, ast.Import):
        return {
            (alias.asname or alias.name).split(".")[0]: "wamlib" if alias.asname is None else alias.name
            for alias in node.names
            if alias.name.split(".")[0] == "wamlib"
        }
    if not isinstance(node, ast.ImportFrom):
        return {}
    base = node.module or ""
    if node.level:
        parts = module.split(".") if is_package else module.split(".")[:-1]
        parts = parts[: len(parts) - node.level + 1]
        base = ".".join([*parts, *filter(None, [node.module])])
    if base.split(".")[0] != "wamlib":
        return {}
    return {
        alias.asname or alias.name: f"{base}.{alias.name}" if path_of(f"{base}.{alias.name}") else (base, alias.name)
        for alias in node.names
    }


@cache
def _contents(module):
    """Return the definitions at the top of a module, name to list of nodes, and its imports."""
    tree, is_package = _parsed(module)
    defined, brought = {}, {}
    for node in tree.body:
        brought |= _targets(node, module, is_package)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.setdefault(node.name, []).append(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name in (inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)):
                    defined.setdefault(name, []).append(node)
    return defined, brought


def _follow(module, name, found):
    """Add what a name of a module stands for, and all that this reaches."""
    ahead = [(module, name)]
    while ahead:
        module, name = place = ahead.pop()
        if place in found or module == "wamlib.errors" or path_of(module) is None:
            continue
        defined, brought = _contents(module)
        if name in defined:
            found[place], used = _definition(*place)
            ahead += used
        elif name in brought:
            target = brought[name]
            ahead += _whole(target) if isinstance(target, str) else [target]
        elif path_of(f"{module}.{name}"):
            ahead += _whole(f"{module}.{name}")


@cache
def _definition(module, name):
    """Return what a name is defined as, as nested lists, and the (module, name) of all that it uses."""
    nodes = _contents(module)[0][name]
    return [_plain(node) for node in nodes], list(dict.fromkeys(use for node in nodes for use in _names(node, module)))


def _whole(module):
    return [(module, name) for name in _contents(module)[0]]


def _names(node, module):
    """Yield the (module, name) that a definition uses."""
    defined, brought = _contents(module)
    is_package = _parsed(module)[1]
    inner, errors = {}, set()
    for part in ast.walk(node):
        inner |= _targets(part, module, is_package)
        if isinstance(part, ast.Raise):
            errors |= set(ast.walk(part))
    known, through = brought | inner, set()
    for part in ast.walk(node):
        if part in errors:
            continue
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            target = known.get(part.value.id)
            if isinstance(target, str):  # a module, of which one name is used
                through.add(part.value)
                yield target, part.attr
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part not in errors and part not in through:
            target = known.get(part.id)
            if isinstance(target, str):
                yield from _whole(target)
            elif target:
                yield target
            elif part.id in defined:
                yield module, part.id


def _plain(node):
    """Return a syntax tree as nested lists, without what changes nothing about what is computed."""
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if not isinstance(node, ast.AST):
        return repr(node) if isinstance(node, (bytes, complex, type(...))) else node
    if isinstance(node, ast.Raise):
        return ["Raise"]
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [one for one in value if not _is_docstring(one)]
        if name not in IDLE and value is not None and value != []:
            fields.append([name, _plain(value)])
    return [type(node).__name__, *fields]


def _is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
