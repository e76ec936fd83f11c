"""What the tests of explanations share."""

import pytest

from tests import browser


@pytest.fixture(scope='module')
def chromium():
    """A browser for the tests of a module; see `tests/browser.py`."""
    driver = browser.start()
    yield driver
    driver.quit()


@pytest.fixture
def quiet_chromium(chromium):
    """The browser; no page of the test may complain in it."""
    browser.messages(chromium)
    yield chromium
    assert browser.messages(chromium) == []
