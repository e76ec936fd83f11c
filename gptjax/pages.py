"""Pages of HTML that need nothing else: template, style and script in one, and nothing fetched."""

import base64
import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

MARK = '<meta name="generator" content="gptjax">'  # of all our pages


def render(
    package: str, name: str, *, scripts: tuple[str, ...] = (), calls: str = '', **values: Any
) -> str:
    """A page from web/<name>.html and .css of a package, beside the style that all pages share.

    `scripts` are names of files that become one script, in this order; `calls` is what they may
    fetch from. The content security policy lets nothing else run or be fetched. Everything in
    `values` is escaped; among them is the `title`. Templates begin with {% include 'head.html' %}.
    """
    folder = resources.files(package) / 'web'
    shared = resources.files('gptjax') / 'web'
    style = (shared / 'base.css').read_text() + (folder / f'{name}.css').read_text()
    script = '\n'.join((folder / f'{part}.js').read_text() for part in scripts)
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        loader=jinja2.FunctionLoader(
            lambda path: (shared if path == 'head.html' else folder).joinpath(path).read_text()
        ),
    )
    allowed = f"style-src 'sha256-{_hash(style)}'"
    allowed += f"; script-src 'sha256-{_hash(script)}'" if script else ''
    allowed += f'; connect-src {calls}' if calls else ''
    return environment.get_template(f'{name}.html').render(
        **values,
        policy=f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'",
        mark=jinja2.filters.Markup(MARK),
        # Ours, and inside elements whose content is no markup.
        style=jinja2.filters.Markup(style),
        script=jinja2.filters.Markup(script),
    )


def is_ours(path: Path) -> bool:
    """Whether a page can go there without the loss of something else."""
    if not path.exists():
        return True
    with open(path if path.is_file() else os.devnull, 'rb') as file:
        return MARK.encode() in file.read(500)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
