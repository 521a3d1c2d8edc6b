"""Launch buttons and edit links, for a build that is told where the repository lives.

``WAMLIB_REPOSITORY=https://github.com/OWNER/NAME`` brings them, and ``WAMLIB_JUPYTERHUB=https://HOST`` adds a hub that
has nbgitpuller. No address stands in the sources; without one the pages have no button, and so none that leads nowhere.
"""

import os
import re

from wamlib.errors import ConfigError

BRANCH = "main"
# What GitHub allows as names. They end up in links and in the footer, so nothing else gets through.
REPOSITORY = re.compile(r"https://github\.com/[A-Za-z0-9][A-Za-z0-9-]*/(?!\.{1,2}$)[A-Za-z0-9._-]+(?<!\.git)")
HUB = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[A-Za-z0-9._~-]+)*")


def setup(app):
    app.connect("config-inited", _configure)
    # The theme makes its buttons with priority 501, of what it finds in the page's context.
    app.connect("html-page-context", _point_to_source, priority=400)
    app.connect("html-page-context", _leave_out, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def options(repository, hub=""):
    """Return the options of the theme for a repository and a JupyterHub; none without a repository."""
    if not repository and not hub:
        return {}
    if not REPOSITORY.fullmatch(repository):
        raise _refusal("WAMLIB_REPOSITORY", repository, "https://github.com/OWNER/NAME, with nothing after the name")
    if hub and not HUB.fullmatch(hub):
        raise _refusal("WAMLIB_JUPYTERHUB", hub, "https://HOST or https://HOST/PATH, with no slash at the end")
    # Thebe stays off: it would load scripts from another server.
    buttons = {
        "notebook_interface": "jupyterlab",
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    }
    return {
        "repository_url": repository,
        "repository_branch": BRANCH,
        "path_to_docs": "",  # a chapter's own path, notebooks/NAME.ipynb, is that of its tracked source
        "use_repository_button": True,
        "use_edit_page_button": True,
        "launch_buttons": {**buttons, "jupyterhub_url": hub} if hub else buttons,
    }


def _refusal(name, got, wanted):
    return ConfigError(
        "cannot make launch buttons and edit links",
        item=name,
        got=repr(got),
        wanted=wanted,
        fix="Correct the environment variable, or unset it to build without buttons.",
    )


def _configure(app, config):
    repository = os.environ.get("WAMLIB_REPOSITORY", "")
    if found := options(repository, os.environ.get("WAMLIB_JUPYTERHUB", "")):
        given = config.html_theme_options
        # Colab opens the notebook alone, without the package.
        colab = f"On Colab, first run <code>%pip install &quot;wamlib[book] @ git+{repository}&quot;</code>."
        footer = " ".join(filter(None, [given.get("extra_footer"), colab]))
        config.html_theme_options = {**given, **found, "extra_footer": footer}


def _point_to_source(app, pagename, templatename, context, doctree):
    # The other pages lie in book/, from where they are built.
    context["doc_path"] = "" if pagename.startswith("notebooks/") else "book"


def _leave_out(app, pagename, templatename, context, doctree):
    # What a build generates has no tracked file to edit.
    if pagename.startswith("generated/"):
        context["header_buttons"] = _without_edit(context.get("header_buttons", []))


def _without_edit(buttons):
    kept = [button for button in buttons if button.get("label") != "source-edit-button"]
    return [{**one, "buttons": _without_edit(one["buttons"])} if "buttons" in one else one for one in kept]
