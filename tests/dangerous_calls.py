"""Find calls in Python source that would run what a file holds, or write where an archive says."""

import ast

# Whatever their arguments are.
NEVER = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
NEVER |= {"pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load", "_pickle.loads", "shelve.open"}
NEVER |= {"cloudpickle.load", "cloudpickle.loads", "dill.load", "dill.loads", "joblib.load", "pandas.read_pickle"}
NEVER |= {"marshal.load", "marshal.loads", "torch.hub.load", "yaml.unsafe_load", "yaml.full_load"}
NEVER |= {"yaml.unsafe_load_all", "yaml.full_load_all"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"}


def dangerous_calls(source):
    """Return the dangerous calls of a module: a list of (line, what is called)."""
    tree, names = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in tree.body:  # a loader of the module's own is as safe as what it is made of
        if isinstance(node, ast.ClassDef) and [_name(base, names) in SAFE_LOADERS for base in node.bases] == [True]:
            names[node.name] = _name(node.bases[0], names)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [(call.lineno, _name(call.func, names)) for call in calls if _is_dangerous(call, names)]
    return sorted(found)


def _name(node, names):
    """Return the dotted name of an expression; of what is called on a result the attributes alone: ``?.extract``."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    return f"{_name(node.value, names)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def _is_dangerous(call, names):
    name, keywords = _name(call.func, names), {keyword.arg: keyword.value for keyword in call.keywords}
    last = name.rpartition(".")[2]

    def says(keyword, value):
        return isinstance(keywords.get(keyword), ast.Constant) and keywords[keyword].value is value

    if name in NEVER:
        return True
    if name == "torch.load" or last in ("load_state_dict_from_url", "get_state_dict"):
        return not says("weights_only", True)
    if last == "get_model":  # torchvision's, which unpickles the weights that it is told to load
        return "weights" in keywords and not says("weights", None)
    if name in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
        return loader is None or _name(loader, names) not in SAFE_LOADERS
    if last in ("extractall", "extract", "unpack_archive"):
        return not (isinstance(keywords.get("filter"), ast.Constant) and keywords["filter"].value == "data")
    if last in ("download_and_extract_archive", "extract_archive"):  # torchvision's, without a filter
        return "md5" not in keywords or says("md5", None)
    return any(keyword in keywords and not says(keyword, False) for keyword in ("allow_pickle", "shell"))
