"""notebooks/first_gpt.ipynb runs from its first cell to its last."""

import json

import pytest

from tests.conftest import ROOT

PATH = ROOT / 'notebooks' / 'first_gpt.ipynb'


@pytest.mark.notebook
def test_the_notebook_runs(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '2')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    notebook = nbformat.read(PATH, 4)
    nbclient.NotebookClient(notebook, resources={'metadata': {'path': tmp_path}}).execute()
    results = [cell.outputs for cell in notebook.cells if cell.cell_type == 'code']
    assert all(results[1:])  # All cells but the first show something.
    pictures = [out for outs in results for out in outs if 'image/png' in out.get('data', {})]
    assert len(pictures) == 2
    assert (tmp_path / 'runs' / 'first' / 'explain.html').exists()


def test_the_notebook_has_twenty_cells_and_no_results():
    cells = json.loads(PATH.read_text())['cells']
    assert len(cells) == 20
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in cells)
