"""Pages: the direction of a text, nothing that a text could break, nothing lost."""

from pathlib import Path

import pytest

from gptjax.errors import UserError
from gptjax.modes import page
from gptjax.tasks.translation.task import Translation


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('ROMEO:', 'ltr'),
        ('دل را ساقیا', 'rtl'),
        ('שלום world', 'rtl'),
        ('12. «دل» is heart', 'rtl'),  # Digits and marks have no direction of their own.
        ('\n1 (a) دل', 'ltr'),
        ('', 'ltr'),
        ('...', 'ltr'),
    ],
)
def test_the_first_letter_decides_the_direction(text, expected):
    assert page.direction(text) == expected


def test_each_text_has_its_own_direction_and_may_contain_anything(tmp_path):
    path = tmp_path / 'a' / 'page.html'
    page.write(path, 'a < b', [('دل', ' را\nساقیا'), ('<b>', '& "so" \ud800')])
    text = path.read_text()
    assert text.startswith('<!doctype html>')
    assert '<title>a &lt; b</title>' in text
    assert '<p dir="rtl"><b>دل</b> را\nساقیا</p>' in text
    assert '<p dir="ltr"><b>&lt;b&gt;</b>&amp; &quot;so&quot; ?</p>' in text
    page.write(path, 'again', [])
    assert '<title>again</title>' in path.read_text()


def test_only_a_page_of_ours_is_replaced(tmp_path):
    path = tmp_path / 'diary.html'
    path.write_text('dear diary')
    with pytest.raises(UserError, match=r'diary.html is there already, and no page of ours; name'):
        page.check(path)
    with pytest.raises(UserError, match=r'is a folder; name a file, such as .*sample.html'):
        page.check(tmp_path)
    with pytest.raises(UserError, match='/dev/null is there already, and no page of ours'):
        page.check(Path('/dev/null'))


def test_a_translation_has_a_direction_of_its_own(tmp_path):
    passages = Translation.passages(None, 'heart', 'دل')
    page.write(tmp_path / 'page.html', 'translate, step 3', passages)
    html = (tmp_path / 'page.html').read_text()
    assert '<p dir="ltr"><b>heart</b></p>' in html
    assert '<p dir="rtl"><b></b>دل</p>' in html
