"""gptjax: trains a GPT and samples from it. One command, one config file, one mode.

  python main.py --config=configs/char.py --mode=train
  python main.py --config=configs/char.py --mode=sample --prompt="ROMEO:"

Any knob of gptjax/config/ can be overridden: --config.train.steps=500.
"""

import importlib
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from gptjax import command_line
from gptjax.config import from_config_dict
from gptjax.errors import UserError
from gptjax.parallel import devices

# Each module has `run(request) -> exit status`, and is imported when it is asked for.
MODES = {
    'train': 'gptjax.modes.train',
    'sample': 'gptjax.modes.sample',
    'eval': 'gptjax.modes.evaluate',
    'data': 'gptjax.modes.data',
    'bench': 'gptjax.modes.bench.run',
    'import': 'gptjax.modes.import_hf',
    'export': 'gptjax.modes.export_hf',
}

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Config file, such as configs/char.py or configs/char.py:baby.'
)
MODE = flags.DEFINE_enum('mode', 'train', list(MODES), 'What to do.')
WORKDIR = flags.DEFINE_string('workdir', None, 'Default: runs/<config file>[-<argument>].')
PROMPT = flags.DEFINE_multi_string('prompt', [], 'Text to continue; may be repeated.')
PROMPT_FILE = flags.DEFINE_string('prompt_file', None, 'A prompt a line; - is standard input.')
SOURCE = flags.DEFINE_string('source', '', 'Of --mode=import: a folder, or a name on the hub.')
TARGET = flags.DEFINE_string('target', '', 'Of --mode=export: a new folder.')
HTML = flags.DEFINE_string('html', '', 'Of --mode=sample: a page to write the texts to.')
COMPILATION_CACHE = flags.DEFINE_bool(
    'compilation_cache', True, 'Keep compiled programs in ~/.cache/gptjax for the next start.'
)
JSON = flags.DEFINE_bool('json', False, 'Print one JSON object on standard output.')


def main(argv: list[str]) -> int:
    """Does what the parsed flags say; returns the exit status."""
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}; options begin with --, see --help')
    config = from_config_dict(CONFIG.value)
    prompts = command_line.read_prompts(PROMPT.value, PROMPT_FILE.value)
    workdir = WORKDIR.value
    if workdir is None:
        workdir = command_line.default_workdir(flags.FLAGS['config'].config_filename)
    command_line.check_workdir(workdir)
    if COMPILATION_CACHE.value:
        devices.keep_compiled(Path.home() / '.cache' / 'gptjax' / 'compiled')
    from gptjax.modes.request import Request

    command = command_line.command_to_repeat(sys.argv)
    request = Request(
        config,
        Path(workdir),
        command,
        prompts,
        JSON.value,
        SOURCE.value,
        TARGET.value,
        HTML.value,
    )
    return importlib.import_module(MODES[MODE.value]).run(request)


if __name__ == '__main__':
    devices.tune_cpu()
    command_line.run(main, flags.FLAGS)
