"""docs/attention.md: its snippets, run as one program, print what stands below them."""

import contextlib
import io
import re

from tests.conftest import ROOT


def test_each_snippet_prints_what_the_page_says():
    text = (ROOT / 'docs' / 'attention.md').read_text()
    blocks = re.findall(r'^```(\w+)\n(.*?)^```', text, re.S | re.M)
    assert len(blocks) == 16
    names = {}
    for (kind, snippet), (shown, output) in zip(blocks[::2], blocks[1::2], strict=True):
        assert (kind, shown) == ('python', 'text')
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(snippet, names)
        assert printed.getvalue() == output
