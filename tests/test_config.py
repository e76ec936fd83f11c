"""Configuration: one definition of every knob, and one clear line for every mistake."""

import dataclasses
import json

import pytest

from gptjax.config import (
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    default_config,
    from_config_dict,
    from_json,
    to_json,
)
from gptjax.config.schema import flatten
from gptjax.errors import UserError


def test_json_and_config_dict_round_trip():
    config = Config(
        model=ModelConfig(n_layer=7), sample=SampleConfig(stop=('\n\n', 'END')), mesh=MeshConfig(2)
    )
    assert from_json(to_json(config)) == config
    assert from_config_dict(default_config()) == Config()


def test_configurations_are_hashable():
    assert hash(Config()) == hash(from_config_dict(default_config()))


def test_every_knob_has_a_meaning():
    for section in (ModelConfig, DataConfig, TrainConfig, SampleConfig, MeshConfig):
        for field in dataclasses.fields(section):
            assert field.metadata['meaning'], field.name


def test_flatten_lists_dotted_names():
    names = dict(flatten(Config()))
    assert names['model.n_layer'] == 4
    assert names['task'] == 'language_model'


@pytest.mark.parametrize(
    ('section', 'values', 'message'),
    [
        (ModelConfig, {'n_embd': 30, 'n_head': 4}, 'model.n_embd=30 is not divisible .*=32'),
        (ModelConfig, {'n_embd': 12, 'n_head': 4}, 'rotary needs an even head width.*n_embd=16'),
        (
            ModelConfig,
            {'n_embd': 9, 'n_head': 3, 'position': 'sinusoidal'},
            'sinusoidal needs an even n_embd, not 9; try model.n_embd=12',
        ),
        (ModelConfig, {'tied_head': True, 'head_bias': True}, 'head_bias=True needs a head of its'),
        (ModelConfig, {'n_layer': -1}, 'model.n_layer=-1 must be at least 1'),
        (ModelConfig, {'block_size': 1}, 'model.block_size=1 must be at least 2'),
        (ModelConfig, {'dropout': 1.0}, 'model.dropout=1.0 must be below 1.0'),
        (ModelConfig, {'norm': 'batch'}, "model.norm='batch' is not one of layer, rms"),
        (ModelConfig, {'dtype': 'float16'}, "model.dtype='float16' is not one of auto, float32"),
        (DataConfig, {'val_fraction': 0.0}, 'data.val_fraction=0.0 must be above 0.0'),
        (DataConfig, {'val_path': 'v.txt'}, 'data.val_path=v.txt needs a training text'),
        (TrainConfig, {'steps': 0}, 'train.steps=0 must be at least 1'),
        (TrainConfig, {'learning_rate': 0.0}, 'train.learning_rate=0.0 must be above 0.0'),
        (TrainConfig, {'learning_rate': float('nan')}, 'train.learning_rate=nan must be above'),
        (TrainConfig, {'learning_rate': float('inf')}, 'train.learning_rate=inf must be finite'),
        (
            TrainConfig,
            {'batch_size': 10, 'accumulate': 4},
            'train.batch_size=10 is not divisible by train.accumulate=4; .*batch_size=12',
        ),
        (
            TrainConfig,
            {'learning_rate': 1e-4, 'min_learning_rate': 1e-3},
            'train.min_learning_rate=0.001 is above train.learning_rate=0.0001',
        ),
        (
            TrainConfig,
            {'optimizer': 'sgd', 'moment_dtype': 'bfloat16'},
            'train.moment_dtype=bfloat16 has no effect with train.optimizer=sgd, .* at float32',
        ),
        (TrainConfig, {'optimizer': 'lion'}, "train.optimizer='lion' is not one of adamw, muon"),
        (SampleConfig, {'temperature': -0.5}, 'sample.temperature=-0.5 must be at least 0'),
        (SampleConfig, {'top_p': 0.0}, 'sample.top_p=0.0 must be above 0'),
        (SampleConfig, {'top_p': 1.5}, 'sample.top_p=1.5 must be at most 1'),
        (SampleConfig, {'max_new_tokens': 10**23}, 'max_new_tokens=1.* must be at most 2147483647'),
        (SampleConfig, {'repetition_penalty': 1e-300}, 'must be at least 0.01'),
        (SampleConfig, {'top_k': -1}, 'sample.top_k=-1 must be at least 0'),
        (SampleConfig, {'stop': ('',)}, 'sample.stop has an empty string'),
        (SampleConfig, {'seed': -1}, 'sample.seed=-1 must be at least 0'),
        (MeshConfig, {'data': -2}, 'mesh.data=-2 must be at least -1'),
    ],
)
def test_values_out_of_bounds_are_refused(section, values, message):
    with pytest.raises(UserError, match=message):
        section(**values)


def test_temperature_zero_is_greedy_and_allowed():
    assert SampleConfig(temperature=0.0).temperature == 0


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda c: c['model'].update(nlayer=3), 'unknown .* model.nlayer; did you mean model.n_la'),
        (lambda c: c.update(stepz=3), 'unknown configuration key stepz'),
        (lambda c: c['model'].update(n_layer='4'), "model.n_layer='4' must be a whole number"),
        (lambda c: c['model'].update(n_layer=4.0), 'model.n_layer=4.0 must be a whole number'),
        (lambda c: c['model'].update(n_layer=True), 'model.n_layer=True must be a whole number'),
        (lambda c: c['model'].update(bias=1), 'model.bias=1 must be True or False'),
        (lambda c: c['model'].update(dropout='x'), "model.dropout='x' must be a number"),
        (lambda c: c['data'].update(path=3), 'data.path=3 must be a text'),
        (lambda c: c['sample'].update(stop='END'), "sample.stop='END' must be a tuple of texts"),
        (lambda c: c['sample'].update(stop=[1]), r'sample.stop=\[1\] must be a tuple of texts'),
        (lambda c: c.update(model=3), 'model=3 is not a group of knobs'),
    ],
)
def test_wrong_keys_and_types_are_refused(edit, message):
    values = json.loads(to_json(Config()))
    edit(values)
    with pytest.raises(UserError, match=message):
        from_config_dict(values)


def test_a_knob_that_an_older_run_did_not_know_has_its_default():
    values = json.loads(to_json(Config(train=TrainConfig(steps=7))))
    del values['model']['qk_norm']
    assert from_config_dict(values) == Config(train=TrainConfig(steps=7))


def test_a_whole_number_serves_where_any_number_does():
    values = json.loads(to_json(Config()))
    values['train']['learning_rate'] = 1
    assert from_config_dict(values).train.learning_rate == 1.0
