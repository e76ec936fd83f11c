"""Files."""

from gptjax.files import write_atomically


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'folder' / 'file'
    write_atomically(path, b'one')
    write_atomically(path, b'two')
    assert path.read_bytes() == b'two'
    assert [p.name for p in path.parent.iterdir()] == ['file']
