"""How Sphinx builds this documentation: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from django_ollama_openai import __version__

sys.path.insert(0, str(Path(__file__).parent))

import generated

# The modules are imported for their docstrings, some of which need a configured site.
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_ollama_openai",
        "django_ollama_openai.contrib.access",
        "django_ollama_openai.contrib.chat",
        "django_ollama_openai.contrib.usage",
    ]
)
django.setup()

project = "django-ollama-openai"
author = "The django-ollama-openai team"
copyright = author
release = version = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
highlight_language = "python"

# What is copied from a console is the commands, without their prompt and their output.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 72
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"django-ollama-openai {release}"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False


class Generated(SphinxDirective):
    """``.. generated:: settings``: what the function of that name in ``generated.py`` gives."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        for path in generated.sources():
            self.env.note_dependency(str(path))
        text: str = generated.PARTS[self.arguments[0]]()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def plain_types(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """Show ``Annotated[int, Gt(gt=0)]`` as ``int``: the docstring states the limits."""
    if signature is None:
        return None
    signature = signature.replace("~typing.", "").replace("<factory>", "…").replace("]=", "] = ")
    return without_metadata(signature), returns and without_metadata(returns)


def without_metadata(signature: str) -> str:
    before, annotated, rest = signature.partition("Annotated[")
    if not annotated:
        return signature
    depth, end, comma = 1, 0, None
    while depth:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(rest[end], 0)
        if rest[end] == "," and depth == 1 and comma is None:
            comma = end
        end += 1
    return without_metadata(f"{before}{rest[:comma]}{rest[end:]}")


def public_titles(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Show the public path of a name when the pointer is on its link, not that of its module."""
    for link in doctree.findall(nodes.reference):
        if "._" in link.get("reftitle", ""):
            link["reftitle"] = link.get("refid") or link["refuri"].rpartition("#")[2]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", public_titles)
    app.connect("autodoc-process-signature", plain_types)
    app.add_directive("generated", Generated)
    app.add_object_type("setting", "setting", indextemplate="single: %s (setting)")
    return {"parallel_read_safe": True}
