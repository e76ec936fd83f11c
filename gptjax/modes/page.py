"""Texts as a page of HTML, each in the direction of its script: not every terminal knows both."""

import html
from collections.abc import Iterable
from pathlib import Path

from gptjax import pages
from gptjax.errors import UserError
from gptjax.files import write_atomically
from gptjax.text.display import direction

STYLE = """
:root { color-scheme: light dark; font: 1.1rem/1.7 Georgia, 'Noto Naskh Arabic', serif }
body { max-width: 42rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.1rem; font-weight: normal; opacity: 0.7 }
p { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; padding: 1.5rem 0 }
p { border-top: 1px solid #8884 }
b { font-weight: normal; opacity: 0.6 }
"""


def render(title: str, samples: Iterable[tuple[str, str]]) -> str:
    """A page of plain texts: prompts, shown paler, and what the model made of them."""
    paragraphs = '\n'.join(
        f'<p dir="{direction(prompt + text)}"><b>{html.escape(prompt)}</b>{html.escape(text)}</p>'
        for prompt, text in samples
    )
    name = html.escape(title)
    return f"""<!doctype html>
<html lang=""><head><meta charset="utf-8">{pages.MARK}
<meta name="viewport" content="width=device-width">
<title>{name}</title><style>{STYLE}</style></head><body><h1>{name}</h1>
{paragraphs}
</body></html>
"""


def check(path: Path) -> None:
    """Raises UserError if a page cannot go there without the loss of something else."""
    if path.is_dir():
        raise UserError(f'--html={path} is a folder; name a file, such as {path / "sample.html"}')
    if not pages.is_ours(path):
        raise UserError(f'--html={path} is there already, and no page of ours; name another file')


def write(path: Path, title: str, samples: Iterable[tuple[str, str]]) -> None:
    """Writes the page whole or not at all."""
    check(path)
    # What a shell passes in a prompt may be no text: it comes as surrogates.
    write_atomically(path, render(title, samples).encode('utf-8', 'replace'))
