"""How JAX is set up."""

import os

import jax
import pytest

from gptjax import devices
from gptjax.devices import copies_pay, copies_pay_in_decoding


@pytest.fixture
def no_cache(monkeypatch):
    """JAX without a compilation cache; what a test sets is taken back."""
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
    names = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update('jax_compilation_cache_dir', None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_compiled_programs_are_kept_in_a_private_folder(no_cache, tmp_path):
    devices.keep_compiled(tmp_path / 'a' / 'compiled')
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'a' / 'compiled')
    assert (tmp_path / 'a' / 'compiled').stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_not_used(no_cache, tmp_path):
    tmp_path.chmod(0o777)
    devices.keep_compiled(tmp_path)
    assert jax.config.jax_compilation_cache_dir is None


def test_a_home_that_cannot_be_written_to_is_no_error(no_cache, tmp_path):
    (tmp_path / 'file').write_text('')
    devices.keep_compiled(tmp_path / 'file' / 'compiled')
    assert jax.config.jax_compilation_cache_dir is None


def test_the_users_own_setting_wins(monkeypatch, tmp_path):
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/elsewhere')
    before = jax.config.jax_compilation_cache_dir
    devices.keep_compiled(tmp_path / 'compiled')
    assert jax.config.jax_compilation_cache_dir == before
    assert not (tmp_path / 'compiled').exists()


def test_one_cpu_device_for_each_core_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '5')
    devices.tune_cpu()
    assert os.environ['JAX_NUM_CPU_DEVICES'] == '5'
    monkeypatch.delenv('JAX_NUM_CPU_DEVICES')
    devices.tune_cpu()
    assert int(os.environ['JAX_NUM_CPU_DEVICES']) == len(os.sched_getaffinity(0))


def test_copies_pay_for_many_tokens(monkeypatch):
    assert [copies_pay(tokens) for tokens in (256, 768, 1024, 4096)] == [False, False, True, True]
    decoding = {(100_000, 16): False, (100_000, 64): True, (800_000, 8): False, (800_000, 16): True}
    decoding |= {(30_000_000, 16): False, (30_000_000, 32): True}
    assert {size: copies_pay_in_decoding(*size) for size in decoding} == decoding
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')  # Each has its own memory.
    assert copies_pay(1) and copies_pay_in_decoding(1, 1)
