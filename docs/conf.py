"""Sphinx: `make docs` builds the pages with every warning an error, broken references among them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import evodeploy

project = "evodeploy"
author = "the evodeploy authors"
version = release = evodeploy.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!evodeploy).*")]  # what other libraries document is not looked up
myst_heading_anchors = 3
myst_enable_extensions = ["deflist", "dollarmath"]
suppress_warnings = ["myst.xref_missing.external"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = "evodeploy"
html_show_copyright = False  # LICENSE has it
html_math_renderer = "mathml"  # browsers draw it themselves; MathJax would be loaded from the network

# The commands' reference is what the commands say of themselves.
_commands = Path(__file__).parent / "reference" / "commands.md"
subprocess.run(
    [sys.executable, "-m", "typer", "evodeploy.cli", "utils", "docs", "--name", "evodeploy", "--output", _commands],
    check=True,
    stdout=subprocess.DEVNULL,
)


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Formulas become MathML."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
