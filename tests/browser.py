"""A Chromium without any network, for tests of pages."""

import shutil


def start(**options: str):
    """A browser that resolves no host; options of the command line without their dashes."""
    from selenium import webdriver

    chrome = webdriver.ChromeOptions()
    names = ('chromium', 'google-chrome', 'chromium-browser')
    chrome.binary_location = next(filter(None, map(shutil.which, names)), '')
    options = {'host-resolver-rules': 'MAP * ~NOTFOUND', 'window-size': '1200,900', **options}
    for argument in ('headless=new', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage'):
        chrome.add_argument(f'--{argument}')
    for name, value in options.items():
        chrome.add_argument(f'--{name}={value}')
    chrome.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = webdriver.ChromeService(shutil.which('chromedriver'))
    return webdriver.Chrome(options=chrome, service=service)


def messages(driver) -> list[str]:
    """What the page complained of since the last call: errors, refused scripts and requests."""
    return [entry['message'] for entry in driver.get_log('browser')]
