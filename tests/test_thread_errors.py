"""What threads report of a failed checkpoint: collected in a file, and nothing else with it."""

import logging

from gptjax.thread_errors import ThreadErrors


def test_late_failures_of_a_write_are_collected_and_other_errors_are_not(caplog):
    errors = ThreadErrors()
    errors.start()
    try:
        log = logging.getLogger('asyncio')
        log.error('Task exception was never retrieved\nfuture: disk full')
        log.error('something else')
    finally:
        errors.stop()
    assert [record.getMessage() for record in caplog.records] == ['something else']
    assert errors.path is not None
    assert 'future: disk full' in errors.path.read_text()
    errors.path.unlink()


def test_nothing_is_collected_after_the_end(caplog):
    errors = ThreadErrors()
    errors.start()
    errors.stop()
    logging.getLogger('asyncio').error('Task exception was never retrieved')
    assert len(caplog.records) == 1
    assert errors.path is None
