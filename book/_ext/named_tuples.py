"""Leave the fields of named tuples out of the API: the parameters above them say what they are.

autodoc takes "Alias for field number 0", which Python writes, for a description, and has no setting against it.
"""


def setup(app):
    app.connect("autodoc-skip-member", skipped)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def skipped(app, what, name, thing, skip, options):
    """Return True for a field without words of its own, and None, which leaves it to others, for all else."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None
