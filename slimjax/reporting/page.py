"""The page: sections laid out by a template into one file that needs nothing besides."""

import re
from base64 import b64encode
from collections.abc import Sequence

import jinja2
from etils import epath
from markupsafe import Markup, escape

from slimjax.reporting.charts import RIGHT, WRONG
from slimjax.reporting.parts import Section, files_of
from slimjax.versions import package_versions

PAGE = "index.html"


def write_page(output: epath.Path, title: str, subtitle: str, command: str, sections: Sequence[Section]) -> epath.Path:
    """Writes the page and, beside it, a PNG for every picture; files of these names are replaced.

    Args:
      output: the folder, made if it is absent.
      title: of the page.
      subtitle: what it reports on.
      command: that makes it again.
      sections: in order.

    Returns:
      The page's path.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(sections).items():
        (output / name).write_bytes(content)
    page = output / PAGE
    page.write_text(render_page(title, subtitle, command, sections))
    return page


def render_page(title: str, subtitle: str, command: str, sections: Sequence[Section]) -> str:
    """The page as HTML: no scripts, nothing that is fetched from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("slimjax.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = lambda png: Markup("data:image/png;base64," + b64encode(png).decode())
    environment.filters["with_code"] = _with_code
    # What matplotlib draws of text is escaped by it.
    environment.filters["drawn"] = Markup
    colours = {"right": RIGHT, "wrong": WRONG}
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        command=command,
        sections=sections,
        colours=colours,
        version=package_versions()["slimjax"],
    )


def _with_code(text: str) -> Markup:
    """A text as HTML, with code for backticks; brackets and stops stay on its line, as a % does on its number's."""
    html = str(escape(text)).replace(" %", "\N{NO-BREAK SPACE}%")
    return Markup(re.sub(r"(\(?)`(.+?)`([).,;:]*)", r'<span class="unbroken">\1<code>\2</code>\3</span>', html))
