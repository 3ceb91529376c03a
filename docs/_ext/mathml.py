"""Math as MathML, made while the site is built: browsers draw it themselves, so no script and no font is loaded."""
from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)


def markup(latex: str, display: str, node: nodes.Node) -> str:
    """A `<math>` element; LaTeX that cannot be converted is a warning and is shown as it stands."""
    latex = latex.replace("{aligned}", "{split}")  # the converter knows the second name only
    try:
        text = str(convert(latex, display=display))
        if "<mi>&</mi>" in text or "\\" in text:
            raise ValueError("an environment or a command is unknown")
        return re.sub(r'columnalign="(left|right)"', r'style="text-align:\1"', text)  # what browsers understand
    except Exception as error:
        LOG.warning("math cannot be converted (%s): %s", type(error).__name__, latex, location=node)
        return f"<code>{escape(latex)}</code>"


def visit_inline(writer: Any, node: nodes.Element) -> None:
    """`$...$`."""
    writer.body.append(markup(node.astext(), "inline", node))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.Element) -> None:
    """`$$...$$`."""
    writer.body.append(writer.starttag(node, "div", CLASS="math-block"))
    writer.body.append(markup(node.astext(), "block", node))
    writer.body.append("</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
