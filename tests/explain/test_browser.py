"""The page of --mode=explain in a real browser, without a network."""

import json
import re

import numpy as np
import pytest

import gptjax
from gptjax.config import Config, ModelConfig
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text.characters import CharTokenizer
from gptjax.text.token_files import Corpus
from gptjax.training.steps import run_key
from tests.conftest import unpack_golden

pytestmark = pytest.mark.browser

PERSIAN = 'بشنو این نی چون شکایت می\u200cکند\n'
HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'


def of_random_model(text, **model):
    """The explanation of a text by a model that has seen nothing; the text is its vocabulary."""
    options = {'n_layer': 2, 'n_head': 2, 'n_embd': 16, **model}
    config = Config(model=ModelConfig(block_size=len(text), **options))
    tokenizer = CharTokenizer(''.join(sorted(set(text))))
    task = LanguageModel(config, Corpus(tokenizer, None, None, 'none'))
    params = task.init_state(run_key(0)).params
    half = len(text) // 2
    return task.explain(params, (text[:half], text[half:]), config.sample, 'a random model')


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    """(explanation, address of its page) of several texts, by name."""
    folder = tmp_path_factory.mktemp('pages')
    unpack_golden(folder, 'char', 'translation', 'gan')
    explained = {
        'golden': gptjax.load(folder / 'char').explain('To be', seed=3, top_k=6),
        'translation': gptjax.load(folder / 'translation').explain('abab c', 'baba c'),
        'gan': gptjax.load(folder / 'gan').explain(),
        'persian': of_random_model(PERSIAN),
        'hostile': of_random_model(HOSTILE),
        'bigram': of_random_model('To be, or not', kind='bigram'),
        'learned': of_random_model('To be, or not', position='learned', norm='layer', bias=True),
    }
    found = {}
    for name, explanation in explained.items():
        (folder / f'{name}.html').write_text(explanation.to_html())
        numbers = json.loads(explanation.to_json())
        found[name] = numbers, (folder / f'{name}.html').as_uri()
    return found


@pytest.fixture
def show(quiet_chromium, pages):
    """Opens a page by name: (browser, numbers); afterwards it must not have complained."""

    def opened(name):
        numbers, address = pages[name]
        quiet_chromium.get(address)
        return quiet_chromium, numbers

    return opened


def text_of(driver, selector):
    return driver.execute_script(
        'return document.querySelector(arguments[0]).innerText', selector
    ).strip()


def rows_of(driver, selector):
    """The cells of the rows of a table, as texts."""
    return driver.execute_script(
        'return [...document.querySelectorAll(arguments[0] + " tbody tr")]'
        '.map((row) => [...row.cells].map((cell) => cell.textContent))',
        selector,
    )


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    chain = ActionChains(driver)
    for key in keys:
        chain.send_keys(getattr(Keys, key))
    chain.perform()


def selected(driver):
    query = 'return document.querySelector("#text [aria-pressed=true]").dataset.t'
    return int(driver.execute_script(query))


def number(text):
    return float(text.replace('−', '-'))


@pytest.mark.parametrize(
    'name', ['golden', 'translation', 'gan', 'persian', 'hostile', 'bigram', 'learned']
)
def test_every_page_shows_its_text_without_a_complaint(show, name):
    driver, numbers = show(name)
    names = [numbers['names'][str(token)] for token in numbers['tokens']]
    shown = driver.execute_script(
        'return [...document.querySelectorAll("#text button")].map((b) => b.textContent)'
    )
    assert shown == names
    assert driver.execute_script('return window.hacked') is None
    assert driver.execute_script('return document.images.length') == 0
    assert selected(driver) == numbers['n_prompt']
    assert text_of(driver, '#prediction-words').startswith(f'After {numbers["n_prompt"]} token')
    assert driver.execute_script('return document.querySelectorAll("canvas").length > 1') == (
        name != 'bigram'
    )


def test_a_click_shows_what_was_expected_there(show):
    from selenium.webdriver.common.by import By

    driver, numbers = show('golden')
    for t in (1, 9):
        driver.find_element(By.CSS_SELECTOR, f'#text [data-t="{t}"]').click()
        expected, outcome = numbers['predictions'][t - 1], numbers['outcomes'][t - 1]
        words = text_of(driver, '#prediction-words')
        assert f'rank {outcome["rank"]},' in words and 'top_k=6' in words
        rows = rows_of(driver, '#prediction-table')
        assert [row[1] for row in rows] == [numbers['names'][str(i)] for i in expected['ids']]
        assert [row[5] for row in rows] == expected['removed_by'] and rows[-1][5] == 'top_k'
        assert rows[-1][4] == '0'


def test_the_numbers_of_a_head_are_those_of_the_model(show):
    driver, numbers = show('golden')
    layer, head, query = 1, 0, numbers['n_prompt'] - 1
    weights = numbers['attention'][0]['layers'][layer]['weights_NTS'][head][query]
    walk = [row for row in rows_of(driver, '#walk-table') if row[5] != '0']
    for row in walk:
        assert number(row[5]) == pytest.approx(weights[int(row[0])], abs=2e-3)
    assert sum(number(row[5]) for row in walk) == pytest.approx(1, abs=2e-3)
    at_most = float(re.search(r'at most ([\d.]+)\.$', text_of(driver, '#walk-proof'))[1])
    assert at_most < 0.01
    looks = {int(row[0]): number(row[2]) for row in rows_of(driver, '#head-table') if row[0]}
    for place, weight in looks.items():
        assert weight == pytest.approx(weights[place], abs=3e-3)


def test_the_parts_shown_add_up_to_the_logit(show):
    driver, numbers = show('golden')
    place, parts = numbers['n_prompt'] - 1, numbers['parts']
    logits = np.array(parts['logits'])[:, place].sum(0)
    *rows, total = rows_of(driver, '#parts-table')
    assert sum(number(row[1]) for row in rows) == pytest.approx(number(total[1]), abs=0.1)
    assert number(total[1]) == pytest.approx(logits[0], abs=0.02)
    rival = parts['ids'][place][2]
    driver.execute_script(
        'const rival = document.getElementById("part-rival"); rival.value = arguments[0];'
        'rival.dispatchEvent(new Event("change"))',
        str(rival),
    )
    *_, total = rows_of(driver, '#parts-table')
    assert number(total[1]) == pytest.approx(logits[0] - logits[2], abs=0.02)


def test_another_head_and_both_switches_change_the_picture(show):
    from selenium.webdriver.common.by import By

    driver, numbers = show('golden')

    def picture():
        return driver.execute_script('return document.getElementById("head").toDataURL()')

    seen = {picture()}
    for selector in ('#hide-first', '#weighted', '#heads button:first-child'):
        driver.find_element(By.CSS_SELECTOR, selector).click()
        seen.add(picture())
    assert len(seen) == 4
    assert text_of(driver, '#head-words').startswith('Layer 0, head 0')
    change = f'{abs(numbers["heads"]["loss_increase"][0][0]):.4f}'
    assert change in text_of(driver, '#head-words')


def test_pointing_at_a_token_shows_what_it_looks_at_and_what_looks_at_it(show):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    driver, numbers = show('golden')
    t, layer = 4, len(numbers['attention'][0]['layers']) - 1
    weights = numbers['attention'][0]['layers'][layer]['weights_NTS'][0]
    token = driver.find_element(By.CSS_SELECTOR, f'#text [data-t="{t}"]')
    ActionChains(driver).move_to_element(token).perform()
    lines = driver.execute_script(
        'return [...document.querySelectorAll("#text button")].map((b) => b.style.boxShadow)'
    )
    for s, line in enumerate(lines):
        below, above = (
            float(alpha or 1)
            for alpha in re.findall(r'rgba?\(\d+, \d+, \d+(?:, ([\d.]+))?\)', line)
        )
        assert below == pytest.approx(weights[t][s] if s <= t else 0, abs=0.01)
        assert above == pytest.approx(weights[s][t] if s > t else 0, abs=0.01)


def test_arrow_keys_go_through_the_text_in_its_direction(show):
    for name, following, before in (
        ('golden', 'ARROW_RIGHT', 'ARROW_LEFT'),
        ('persian', 'ARROW_LEFT', 'ARROW_RIGHT'),
    ):
        driver, numbers = show(name)
        direction = driver.execute_script('return document.getElementById("text").dir')
        assert direction == numbers['direction'] == ('rtl' if name == 'persian' else 'ltr')
        first = selected(driver)
        press(driver, following, following, before)
        assert selected(driver) == first + 1
        press(driver, *[before] * (first + 5))
        assert selected(driver) == 1  # The first token has no context.


def test_everything_is_reached_by_keyboard(show):
    driver, _ = show('golden')
    reached = set()
    for _ in range(30):
        press(driver, 'TAB')
        reached.add(
            driver.execute_script(
                'const e = document.activeElement; return e.id || e.parentElement.id || e.tagName'
            )
        )
    wanted = {'text', 'hide-first', 'weighted', 'heads', 'part-token', 'part-rival', 'SUMMARY'}
    assert wanted <= reached | {'SUMMARY'} and len(reached) >= 7


def test_a_narrow_screen_needs_no_sideways_scrolling(show):
    driver, _ = show('golden')
    size = {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': True}
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    try:
        assert driver.execute_script('return document.documentElement.scrollWidth') <= 360
    finally:
        driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_dark_pages_are_dark(show):
    driver, _ = show('golden')
    paper = 'return getComputedStyle(document.body).backgroundColor'
    light = driver.execute_script(paper)
    scheme = {'features': [{'name': 'prefers-color-scheme', 'value': 'dark'}]}
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', scheme)
    try:
        dark = driver.execute_script(paper)
    finally:
        driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})
    assert light == 'rgb(255, 255, 255)' and dark == 'rgb(22, 24, 27)'


def test_a_translation_shows_three_kinds_of_attention(show):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    driver, numbers = show('translation')
    strip = driver.execute_script(
        'return [...document.querySelectorAll("#source button")].map((b) => b.textContent)'
    )
    assert strip == numbers['source']
    kinds = Select(driver.find_element(By.ID, 'kind'))
    assert [option.text for option in kinds.options] == [k['name'] for k in numbers['attention']]
    for i, kind in enumerate(numbers['attention']):
        kinds.select_by_index(i)
        query = 0 if kind['rows'] == 'source' else numbers['n_prompt'] - 1
        weights = kind['layers'][-1]['weights_NTS'][0][query]
        looks = [row for row in rows_of(driver, '#head-table') if row[0]]
        assert len(looks) == min(10, query + 1 if kind['columns'] == 'tokens' else len(weights))
        for place, _, weight, *_ in looks:
            assert number(weight) == pytest.approx(weights[int(place)], abs=3e-3)
    # The encoder's rows are chosen in the source.
    driver.find_element(By.CSS_SELECTOR, '#source [data-t="2"]').click()
    assert 'token 2' in text_of(driver, '#walk-words')
