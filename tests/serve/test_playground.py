"""The playground in a real browser, on a server of three models."""

import json
import urllib.parse

import pytest

from tests import browser
from tests.serve.conftest import serving, soon

pytestmark = [pytest.mark.browser, pytest.mark.serve]

PERSIAN = 'بشنو این نی'


@pytest.fixture(scope='module')
def chromium():
    driver = browser.start(**{'host-resolver-rules': 'MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'})
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium, address):
    """The playground, loaded anew; nothing may complain in it."""
    chromium.get('about:blank')
    browser.messages(chromium)
    chromium.get(f'{address}/')
    assert soon(lambda: not chromium.find_element('id', 'main').get_attribute('hidden'))
    yield chromium
    # Chromium notes each refused request, whose reason the page shows.
    found = browser.messages(chromium)
    assert [message for message in found if '(Bad Request)' not in message] == []


def fill(page, name, value):
    script = 'const e = document.getElementById(arguments[0]); e.value = arguments[1];'
    script += (
        "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    page.execute_script(script, name, str(value))


def texts(page) -> list[str]:
    return [box.get_property('textContent') for box in page.find_elements('css selector', '.text')]


def ended(page) -> bool:
    notes = page.find_elements('css selector', '.note')
    return bool(notes) and all(note.text for note in notes)


def generate(page, text='To be', **values):
    fill(page, 'prompt', text)
    for name, value in values.items():
        fill(page, name, value)
    page.find_element('id', 'go').click()
    assert soon(lambda: ended(page) or error(page), 60)


def error(page) -> str:
    return page.find_element('id', 'error').text


def test_a_text_is_streamed_and_is_that_of_sample(page, runs):
    generate(page, max_tokens=40, temperature=0.8, seed=5)
    new = runs[0].generate('To be', max_new_tokens=40, temperature=0.8, seed=5)
    assert texts(page) == ['To be' + new]
    assert len(page.find_elements('css selector', '.token')) == 40
    tooltip = page.find_element('css selector', '.token').get_attribute('title')
    assert '%' in tooltip and 'bits' in tooltip and len(tooltip.splitlines()) == 7


def test_stop_ends_a_text(page):
    fill(page, 'prompt', 'To be')
    fill(page, 'max_tokens', 1000)
    fill(page, 'n', 8)
    page.find_element('id', 'go').click()
    assert soon(lambda: page.find_elements('css selector', '.token'))
    page.find_element('id', 'stop').click()
    assert soon(lambda: not page.find_element('id', 'stop').is_enabled())
    assert not error(page)
    assert len(page.find_elements('css selector', '.column')) == 8


def test_an_alternative_is_picked_and_undone_with_the_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys

    generate(page, max_tokens=10, seed=3)
    before = texts(page)[0]
    token = page.find_elements('css selector', '.token')[0]
    page.execute_script('arguments[0].focus()', token)
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    panel = page.find_element('id', 'alternatives')
    assert len(panel.find_elements('css selector', 'button')) in (10, 11)  # And the one drawn.
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    wanted = page.switch_to.active_element.find_element('css selector', 'bdi').text
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert soon(lambda: ended(page) and page.find_element('id', 'undo').is_enabled())
    prompt = page.find_element('id', 'prompt').get_property('value')
    assert prompt[:-1] == before[:7]
    assert wanted in (prompt[-1], '␣', '↵')
    page.find_element('id', 'undo').click()
    assert page.find_element('id', 'prompt').get_property('value') == 'To be'
    page.find_element('id', 'prompt').send_keys(Keys.CONTROL, Keys.ENTER)
    assert soon(lambda: ended(page) and texts(page) == [before])


def test_escape_closes_the_alternatives(page):
    from selenium.webdriver.common.keys import Keys

    generate(page, max_tokens=5)
    page.find_elements('css selector', '.token')[2].click()
    panel = page.find_element('id', 'alternatives')
    assert panel.is_displayed()
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not panel.is_displayed()
    assert page.switch_to.active_element.get_attribute('data-number') == '2'


def test_two_checkpoints_side_by_side_and_what_flips(page, runs):
    generate(page, max_tokens=30, seed=2, other=f'char@{runs[0].step}')
    first, second = texts(page)
    assert first == second  # The same weights and the same noise.
    headings = [box.text for box in page.find_elements('css selector', '.column h2')]
    assert headings == ['char', f'char@{runs[0].step}']
    assert not page.find_elements('css selector', '.flipped')
    generate(page, temperature=0.2)
    flipped = len(page.find_elements('css selector', '.column:first-child .flipped'))
    note = page.find_element('css selector', '.note').text
    assert 0 < flipped < 30
    assert f'{flipped} differ from before' in note


def test_the_surprise_of_a_text(page, runs):
    fill(page, 'prompt', 'To be, or not')
    page.find_element('id', 'score').click()
    assert soon(lambda: ended(page))
    score = runs[0].score('To be, or not')
    note = page.find_element('css selector', '.note').text
    assert f'{score.loss:.4f} nats per token' in note
    assert f'{score.loss / 0.693147:.3f} bits per character' in note
    colours = page.find_elements('css selector', '.token[style*=background]')
    assert len(colours) == len('To be, or not') - 1


def test_settings_and_text_are_in_the_address(page, address):
    generate(page, 'To & fro', max_tokens=7, temperature=0.5, seed=9)
    found = dict(urllib.parse.parse_qsl(page.current_url.partition('#')[2]))
    expected = {'seed': '9', 'max_tokens': '7', 'temperature': '0.5', 'model': 'char'}
    assert found == {**expected, 'text': 'To & fro'}
    there = page.current_url
    page.get('about:blank')
    page.get(there)
    assert soon(lambda: not page.find_element('id', 'main').get_attribute('hidden'))
    assert page.find_element('id', 'temperature').get_property('value') == '0.5'
    assert page.find_element('id', 'prompt').get_property('value') == 'To & fro'


def test_a_point_of_the_curve_chooses_a_checkpoint(page, runs):
    fill(page, 'model', 'char')
    page.find_element('css selector', '#curve circle').click()
    assert page.find_element('id', 'model').get_property('value') == f'char@{runs[0].step}'
    assert 'block_size' in page.find_element('id', 'card').text


def test_other_tasks_can_be_played_with(page):
    fill(page, 'model', 'gan')
    assert not page.find_element('id', 'score').is_enabled()
    fill(page, 'max_tokens', '')
    generate(page, '', seed=4, n=2)
    assert len(texts(page)) == 2 and all(texts(page)) and not error(page)


def test_a_mistake_is_told_and_nothing_is_lost(page):
    generate(page, 'Ж')
    assert "the character 'Ж'" in error(page)
    assert page.find_element('id', 'prompt').get_property('value') == 'Ж'
    assert page.find_element('id', 'go').is_enabled()


def test_text_from_others_is_no_markup(page):
    hostile = '<img src=x onerror=window.hacked=1></textarea><script>window.hacked=1</script>'
    page.get(page.current_url.partition('#')[0] + f'#text={urllib.parse.quote(hostile)}')
    page.refresh()
    assert soon(lambda: page.find_element('id', 'prompt').get_property('value') == hostile)
    fill(page, 'model', 'translation')
    page.find_element('id', 'go').click()
    assert soon(lambda: error(page))
    assert page.execute_script('return window.hacked') is None


def test_right_to_left_and_narrow(page):
    page.set_window_size(360, 800)
    fill(page, 'prompt', PERSIAN)
    prompt = page.find_element('id', 'prompt')
    direction = 'return getComputedStyle(arguments[0]).direction'
    assert page.execute_script(direction, prompt) == 'rtl'
    generate(page, 'To be', max_tokens=60, n=2)
    wide = 'return document.documentElement.scrollWidth - document.documentElement.clientWidth'
    assert page.execute_script(wide) <= 0
    page.set_window_size(1200, 900)


def opened_picture(page) -> str:
    page.find_element('css selector', '.picture summary').click()
    assert soon(lambda: page.find_elements('css selector', '.picture table, .picture p'), 60)
    return page.find_element('css selector', '.picture').text


def test_a_translation_shows_its_attention(page, runs):
    source = runs[1].task.prompts(())[0]
    fill(page, 'model', 'translation')
    generate(page, source)
    assert texts(page) == runs[1].generate([source])
    assert 'Mean of the heads of' in opened_picture(page)
    rows = page.find_elements('css selector', '.picture tbody tr')
    for row in rows:
        titles = [cell.get_attribute('title') for cell in row.find_elements('css selector', 'td')]
        shares = [float(title.rsplit(' ', 1)[1].removesuffix('%')) for title in titles]
        assert sum(shares) == pytest.approx(100, abs=1)


def test_a_sentence_of_the_gan_shows_its_style(page, runs):
    fill(page, 'model', 'gan')
    generate(page, '', seed=3)
    sentence = texts(page)[0]
    assert 'The critic gives this sentence' in opened_picture(page)
    words = [cell.text for cell in page.find_elements('css selector', '.picture th')]
    assert (
        ' '.join(words).removesuffix(' END')
        == sentence.strip()
        == runs[2].generate('', seed=3, num_samples=1).strip()
    )
    width = len(page.find_elements('css selector', '.picture tr:first-child td'))
    assert width == runs[2].config.model.n_embd


def test_explain_opens_the_page_of_the_text(page, address):
    page.get(f'{address}/explain?model=char&text=To%20be')
    assert 'char' in page.title
    assert page.find_elements('css selector', 'svg, canvas, table')


def test_the_page_of_another_origin_reads_nothing(chromium, address, runs):
    with serving(runs[2:]) as (other, _):
        chromium.get(f'{other}/healthz')
        script = """
            const [address, body, done] = arguments;
            const attempts = [
              [`${address}/v1/models`, {}],
              [`${address}/v1/models`, {mode: 'no-cors'}],
              [`${address}/v1/completions`, {method: 'POST', body}],
              [`${address}/v1/completions`,
                {method: 'POST', body, headers: {'content-type': 'application/json'}}],
            ];
            Promise.all(attempts.map(([url, how]) => fetch(url, how)
              .then((answer) => answer.text().then((text) => answer.type + text))
              .catch(() => 'refused'))).then(done);
        """
        body = json.dumps({'prompt': 'To', 'max_tokens': 1})
        found = chromium.execute_async_script(script, address, body)
    assert found[0] == found[2] == found[3] == 'refused'
    assert found[1] in ('refused', 'opaque')
    browser.messages(chromium)
