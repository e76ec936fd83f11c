"""The command line: one config file, one mode.

  PROGRAM --config=char --mode=train
  PROGRAM --config=char --mode=sample --prompt="ROMEO:"

--config names a recipe that comes with gptjax, or a file such as configs/char.py; after a colon
comes its argument: --config=char:small. Any setting can be overridden: --config.train.steps=500.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from gptjax import command_line, devices, files
from gptjax.config import from_config_dict
from gptjax.errors import UserError
from gptjax.plan import early

# Each module has `run(request) -> exit status`, and is imported when it is asked for.
MODES = {
    'train': 'gptjax.modes.train',
    'sample': 'gptjax.modes.sample',
    'eval': 'gptjax.modes.evaluate',
    'data': 'gptjax.modes.data',
    'explain': 'gptjax.modes.explain',
    'report': 'gptjax.modes.report',
    'serve': 'gptjax.modes.serve',
    'bench': 'gptjax.modes.bench.run',
    'plan': 'gptjax.modes.plan',
    'import': 'gptjax.modes.import_hf',
    'export': 'gptjax.modes.export_hf',
}


TOGETHER = ('train', 'eval', 'sample')  # modes for several processes
PROCESS_FLAGS = ('coordinator', 'num_processes', 'process_id')
# Environment variables with the number of processes, of launchers that JAX's runtime understands.
LAUNCHERS = ('OMPI_COMM_WORLD_SIZE', 'SLURM_STEP_NUM_TASKS')


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines all flags; ml_collections looks in `argv` for the overrides of settings."""
    both: dict[str, Any] = {'flag_values': values}
    config_flags.DEFINE_config_file(
        'config', None, 'Recipe or config file, such as char:small or mine.py.', values,
        sys_argv=argv,
    )  # fmt: skip
    flags.DEFINE_enum('mode', 'train', list(MODES), 'What to do.', **both)
    flags.DEFINE_string('workdir', None, 'Default: runs/<config file>[-<argument>].', **both)
    flags.DEFINE_multi_string('prompt', [], 'Text to continue; may be repeated.', **both)
    flags.DEFINE_string('prompt_file', None, 'A prompt a line; - is standard input.', **both)
    flags.DEFINE_string('source', '', 'Of --mode=import: a folder or a name on the hub.', **both)
    flags.DEFINE_string('target', '', 'Of --mode=export: a new folder.', **both)
    flags.DEFINE_string('html', '', 'A page to write, of --mode=sample, explain, report.', **both)
    flags.DEFINE_bool(
        'live', True, 'Of --mode=explain: put a small model into the page as well.', **both
    )
    flags.DEFINE_multi_string(
        'against', [], 'Of --mode=report, serve: another work directory; may be repeated.', **both
    )
    flags.DEFINE_bool('verify', False, 'Of --mode=report: evaluate again and compare.', **both)
    flags.DEFINE_bool('check', False, 'Of --mode=plan: measure here and print the error.', **both)
    flags.DEFINE_string('host', '127.0.0.1', 'Of --mode=serve: the address.', **both)
    flags.DEFINE_integer('port', 8000, 'Of --mode=serve; 0 picks a free one.', **both)
    flags.DEFINE_integer('slots', 16, 'Of --mode=serve: texts generated at a time.', **both)
    flags.DEFINE_string('token_file', '', 'Of --mode=serve: requests need this token.', **both)
    flags.DEFINE_string(
        'allow_origin', '', 'Of --mode=serve: another origin whose pages may call.', **both
    )
    flags.DEFINE_string(
        'coordinator', '', 'Of several processes: HOST:PORT where process 0 listens.', **both
    )
    flags.DEFINE_integer('num_processes', 0, 'Number of processes that work together.', **both)
    flags.DEFINE_integer('process_id', -1, 'Number of this process, from 0.', **both)
    flags.DEFINE_bool(
        'compilation_cache', True, 'Keep compiled programs in the cache folder.', **both
    )
    flags.DEFINE_bool('json', False, 'Print one JSON object on standard output.', **both)


def main() -> None:
    """Does what sys.argv says, and exits with the status of that."""
    devices.tune_cpu()
    command_line.run(run_mode, define_flags, __doc__, before=join_processes)


def join_processes(argv: list[str]) -> None:
    """Joins the other processes, if flags or a launcher say that there are any.

    Before the flags are parsed, since a config file may ask JAX for its devices.
    """
    given = [command_line.last_value(argv, name) for name in PROCESS_FLAGS]
    if not (any(given) or _launched()):
        return
    mode = command_line.last_value(argv, 'mode') or 'train'
    if mode not in TOGETHER:
        raise UserError(f'--mode={mode} is for one process; start one, without a launcher')
    from gptjax import processes

    processes.start(processes.place(*given) if any(given) else None)


def _launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return any(os.environ.get(name, '1') != '1' for name in LAUNCHERS)


def run_mode(argv: list[str]) -> int:
    """Does what the parsed flags say; returns the exit status."""
    values = flags.FLAGS
    if argv[1:]:
        raise UserError(f'unexpected argument {argv[1]!r}; options begin with --, see --help')
    config = from_config_dict(values.config)
    several = bool(values.num_processes or _launched())
    if several and values.prompt_file == '-':
        raise UserError(
            '--prompt_file=- is read by one of several processes alone; name a file that all read'
        )
    prompts = command_line.read_prompts(values.prompt, values.prompt_file)
    workdir = values.workdir
    if workdir is None:
        workdir = command_line.default_workdir(config_flags.get_config_filename(values['config']))
    command_line.check_workdir(workdir)
    if values.mode == 'train' and not several:
        early.refuse_blocks_that_cannot_fit(config)
    if values.compilation_cache:
        devices.keep_compiled(files.user_cache() / 'compiled')
    from gptjax.modes.request import Request, ServeFlags

    request = Request(
        config=config,
        workdir=Path(workdir),
        command=command_line.command_to_repeat(sys.argv),
        program=command_line.program(sys.argv),
        prompts=prompts,
        as_json=values.json,
        source=values.source,
        target=values.target,
        html=values.html,
        against=tuple(values.against),
        verify=values.verify,
        check=values.check,
        live=values.live,
        serve=ServeFlags(
            values.host, values.port, values.slots, values.token_file, values.allow_origin
        ),
    )
    return importlib.import_module(MODES[values.mode]).run(request)
