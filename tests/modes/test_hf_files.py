"""--mode=export and --mode=import as a user types them, with transformers on the other side."""

import json
import shlex
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from gptjax.config import Config
from gptjax.errors import UserError
from gptjax.modes import export_hf, import_hf
from gptjax.modes.request import Request
from gptjax.run import Run
from tests.conftest import VERSE, import_or_none, one_line, run_main

torch, transformers = import_or_none('torch'), import_or_none('transformers')

SMALL = [
    '--config=configs/char_nanogpt.py:cpu',
    '--config.train.steps=200',
    '--config.train.batch_size=8',
    '--config.train.steps_per_call=10',
    '--config.train.learning_rate=1e-2',
    '--config.train.warmup_steps=0',
    '--config.model.block_size=16',
    '--config.model.n_layer=2',
    '--config.model.n_head=2',
    '--config.model.n_embd=16',
]


@pytest.fixture(scope='module')
def exported(tmp_path_factory, verse_file):
    """The flags of a trained character model, its work directory, and the folder it went to."""
    folder = tmp_path_factory.mktemp('hf')
    flags = [*SMALL, f'--config.data.path={verse_file}', f'--workdir={folder / "run"}']
    done = run_main(*flags, '--mode=train')
    assert done.returncode == 0, done.stderr
    done = run_main(*flags, '--mode=export', f'--target={folder / "out"}')
    assert done.returncode == 0, done.stderr
    assert f'Exported step 200 of {folder / "run"} to {folder / "out"}' in done.stderr
    return flags, folder


@pytest.mark.torch
def test_transformers_loads_an_exported_character_model(exported):
    """The same loss over the whole validation split, and the same tokens."""
    flags, folder = exported
    figures = json.loads(run_main(*flags, '--mode=eval', '--json').stdout)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / 'out').eval()
    trained = Run.open(folder / 'run')
    tokens = np.asarray(trained.task.corpus.val.tokens).astype(np.int64)
    nats = count = 0
    with torch.no_grad():
        for first in range(0, len(tokens) - 1, 16):
            window = torch.from_numpy(tokens[None, first : first + 17])
            n = window.shape[1] - 1
            logits = theirs(window[:, :-1]).logits[0]
            nats += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction='sum')
            count += n
    assert count == figures['tokens']
    assert float(nats) / count == pytest.approx(figures['val_loss'], abs=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / 'out')
    text = 'ROMEO:\nBut, soft!\n\n'
    ids = trained.task.tokenizer.encode(text).tolist()
    assert tokenizer(text)['input_ids'] == ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id in range(len(tokenizer))  # CTranslate2 refuses one without it.


@pytest.mark.torch
def test_an_imported_model_has_the_logits_of_transformers(exported, tmp_path):
    """By default, on a CPU: the shipped recipe computes in float32 there."""
    _, folder = exported
    flags = ['--config=configs/gpt2.py', f'--workdir={tmp_path / "gpt2"}']
    done = run_main(*flags, '--mode=import', f'--source={folder / "out"}')
    assert done.returncode == 0, done.stderr
    text = 'ROMEO:\nBut, soft!'[:16]
    imported = Run.open(tmp_path / 'gpt2')
    ids = torch.from_numpy(np.asarray(imported.task.tokenizer.encode(text), np.int64))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / 'out').eval()
    with torch.no_grad():
        expected = theirs(ids[None]).logits[0].numpy()
    assert np.abs(imported.forward(text).logits - expected).max() < 1e-4


def test_import_undoes_export(exported, verse_file, tmp_path):
    flags, folder = exported
    back = ['--config=configs/gpt2.py', f'--workdir={tmp_path / "back"}']
    done = run_main(*back, '--mode=import', f'--source={folder / "out"}')
    assert done.returncode == 0, done.stderr
    said, sample, finetune = done.stderr.splitlines()[-3:]
    assert said.endswith(f'into {tmp_path / "back"}. Now type, for example:')
    assert sample == f'  {shlex.join(["python", "main.py", *back])} --mode=sample'
    assert finetune == (
        '  python main.py --config=gpt2_finetune --mode=train '
        f'--config.train.init_from={tmp_path / "back"}'
    )
    done = run_main(*back, '--mode=export', f'--target={tmp_path / "again"}')
    assert done.returncode == 0, done.stderr
    there, again = (
        load_file(d / 'model.safetensors') for d in (folder / 'out', tmp_path / 'again')
    )
    assert there.keys() == again.keys()
    assert all(np.array_equal(there[name], again[name]) for name in there)
    # It samples as the original does, and has a loss where it gets a text.
    prompt = ['--prompt=ROMEO:', '--json', '--config.sample.max_new_tokens=30', '--mode=sample']
    texts = [json.loads(run_main(*f, *prompt).stdout)['samples'] for f in (flags, back)]
    assert texts[0] == texts[1] or len(texts[1][0]['text']) == 30
    assert 'has no held-out text; give one with' in one_line(run_main(*back, '--mode=eval'), 1)
    done = run_main(*back, '--mode=eval', '--json', f'--config.data.path={verse_file}')
    assert json.loads(done.stdout)['val_loss'] < 3.6
    assert 'already holds a run' in one_line(
        run_main(*back, '--mode=import', f'--source={folder / "out"}'), 1
    )


def test_an_imported_model_can_be_fine_tuned(exported, tmp_path):
    """A LoRA change alone learns a text in which other letters follow each other."""
    _, folder = exported
    done = run_main(
        '--config=configs/gpt2.py',
        f'--workdir={tmp_path / "gpt2"}',
        '--mode=import',
        f'--source={folder / "out"}',
    )
    assert done.returncode == 0, done.stderr
    other = tmp_path / 'backwards.txt'
    other.write_text((VERSE * 20)[::-1])
    flags = [
        '--config=configs/gpt2_finetune.py',
        f'--workdir={tmp_path / "tuned"}',
        f'--config.train.init_from={tmp_path / "gpt2"}',
        f'--config.data.path={other}',
        '--config.model.block_size=16',
        '--config.model.dropout=0.0',
        '--config.train.lora_rank=4',
        '--config.train.lora_targets=("query", "down")',
        '--config.train.learning_rate=0.03',
        '--config.train.warmup_steps=0',
        '--config.train.steps=100',
        '--config.train.eval_every=100',
    ]
    done = run_main(*flags, '--mode=train')
    assert done.returncode == 0, done.stderr
    assert 'of which a LoRA change of rank 4 is trained' in done.stderr
    losses = [
        json.loads(line)['train_loss']
        for line in (tmp_path / 'tuned' / 'metrics.jsonl').read_text().splitlines()
    ]
    assert losses[-1] < losses[0] - 1
    done = run_main(*flags, '--mode=export', f'--target={tmp_path / "merged"}')
    assert done.returncode == 0, done.stderr
    before, after = (
        load_file(d / 'model.safetensors') for d in (folder / 'out', tmp_path / 'merged')
    )
    changed = {name for name in after if not np.array_equal(before[name], after[name])}
    names = ('attn.c_attn', 'mlp.c_proj')
    assert changed == {f'transformer.h.{i}.{name}.weight' for i in range(2) for name in names}


@pytest.fixture
def source(exported, tmp_path):
    shutil.copytree(exported[1] / 'out', tmp_path / 'source')
    return tmp_path / 'source'


def load(folder):
    return import_hf.load(Request(config=Config(), workdir=folder.parent / 'run'), folder)


def test_pickles_are_refused_with_the_remedy(source):
    (source / 'model.safetensors').rename(source / 'pytorch_model.bin')
    with pytest.raises(UserError, match=r'bin is a pickle, .* safe_serialization=True'):
        load(source)
    (source / 'pytorch_model.bin').unlink()
    with pytest.raises(UserError, match=r'source has no \*.safetensors'):
        load(source)


def test_damaged_folders_are_refused(source):
    (source / 'model.safetensors').write_bytes(b'\x10' * 20)
    with pytest.raises(UserError, match=r'model.safetensors cannot be read \(.*get it again'):
        load(source)
    (source / 'tokenizer.json').unlink()
    with pytest.raises(UserError, match=r'has no tokenizer .* is not GPT-2'):
        load(source)
    (source / 'tokenizer.json').write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(UserError, match='is neither a byte-level BPE nor one that gptjax wrote'):
        load(source)
    (source / 'config.json').write_text('{')
    with pytest.raises(UserError, match=r'config.json cannot be read'):
        load(source)


def test_a_tokenizer_of_another_size_is_refused(source):
    config = json.loads((source / 'config.json').read_text())
    (source / 'config.json').write_text(json.dumps(config | {'vocab_size': 7}))
    with pytest.raises(UserError, match=r'a tokenizer of \d+ tokens and a model of 7'):
        load(source)


def run(mode, tmp_path, **fields):
    return mode.run(Request(config=Config(), workdir=tmp_path / 'run', **fields))


def test_flags_that_are_missing_or_wrong(tmp_path, monkeypatch):
    with pytest.raises(UserError, match='--mode=import needs --source=DIR, or the name of'):
        run(import_hf, tmp_path)
    with pytest.raises(UserError, match=r'--source=\./none is no folder; give one'):
        run(import_hf, tmp_path, source='./none')
    with pytest.raises(UserError, match='--mode=export needs --target=DIR'):
        run(export_hf, tmp_path)
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'x').touch()
    with pytest.raises(UserError, match='full is there already and not empty; name a new folder'):
        run(export_hf, tmp_path, target=str(tmp_path / 'full'))

    import huggingface_hub

    def offline(*_, **__):
        raise OSError('no network')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', offline)
    with pytest.raises(UserError, match=r'could not be fetched from the hub \(no network\); put c'):
        run(import_hf, tmp_path, source='gpt2')


def test_a_missing_extra_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=r"huggingface_hub is not installed; .* -e '.\[hf\]'"):
        run(import_hf, tmp_path, source='gpt2')
