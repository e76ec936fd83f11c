"""The command line's manners: one line for each mistake, and no traceback.

absl and ml_collections report a missing config file late and an unknown knob as a traceback; what
they cannot say well is checked here, before them.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from gptjax.config import Config
from gptjax.errors import UserError, nearest
from gptjax.schema import flatten

USER_MISTAKE = 1
BAD_FLAGS = 2


def run(main: Callable[[list[str]], int], flag_values: flags.FlagValues) -> None:
    """Parses the flags, calls main with what is left, and exits with its status."""

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            sys.argv[:] = check_config_flags(list(argv))  # ml_collections reads it there again.
            return flag_values(sys.argv)
        except (flags.Error, UserError) as error:
            _leave(error, BAD_FLAGS)
        except Exception as error:  # Anything that the code of a config file may raise.
            _leave(f'the config file raised {type(error).__name__}: {error}', BAD_FLAGS)

    def guarded(argv: list[str]) -> int:
        try:
            return main(argv)
        except UserError as error:
            _leave(error, USER_MISTAKE)
        except BrokenPipeError:  # The reader of our output, `head` for example, has enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            return 130

    logging.set_verbosity(logging.ERROR)  # Orbax tells its life at lower ones.
    app.run(guarded, flags_parser=parse)


def check_config_flags(argv: list[str]) -> list[str]:
    """Checks --config and its overrides, and puts --config first, where ml_collections wants it.

    Raises:
      UserError: the file is missing or an override names no knob.
    """
    config_at = [i for i, arg in enumerate(argv) if re.match(r'--?config(=|$)', arg)]
    if not config_at:
        if any(re.match(r'--?help', arg) for arg in argv):
            return argv
        raise UserError(f'--config is missing; try --config={_known_configs()[0]}')
    first = config_at[-1]
    width = 1 if '=' in argv[first] else 2
    config_args = argv[first : first + width]
    path = Path(config_args[-1].removeprefix('-').removeprefix('-config=').split(':')[0])
    if width == 1:
        path = Path(argv[first].split('=', 1)[1].split(':')[0])
    if not path.is_file() or not os.access(path, os.R_OK):
        raise UserError(
            f'--config={path} is not a file that can be read; '
            + nearest(str(path), _known_configs())
        )
    known = [name for name, _ in flatten(Config())]
    for arg in argv:
        override = re.match(r'--?(?:no)?config\.([^=]+)', arg)
        if override and override[1] not in known:
            meant = nearest(override[1], known).replace('mean ', 'mean --config.')
            raise UserError(f'{arg.split("=")[0]} is no knob; {meant}')
    rest = [arg for i, arg in enumerate(argv[1:], 1) if not first <= i < first + width]
    return [argv[0], *config_args, *rest]


def read_prompts(prompts: Sequence[str], prompt_file: str | None) -> tuple[str, ...]:
    """All prompts: those of the flag, then those of the file (- is standard input), a line each.

    Raises:
      UserError: the file cannot be read or is not UTF-8.
    """
    if prompt_file is None:
        return tuple(prompts)
    try:
        if prompt_file == '-':
            text = sys.stdin.buffer.read().decode()
        else:
            text = Path(prompt_file).read_text(encoding='utf-8')
    except OSError as error:
        raise UserError(f'cannot read --prompt_file={prompt_file}: {error.strerror}') from None
    except UnicodeDecodeError as error:
        raise UserError(
            f'--prompt_file={prompt_file} is not UTF-8 at byte {error.start}; convert it with iconv'
        ) from None
    return (*prompts, *text.splitlines())


def name_workdir(config_flag: str, workdir: str | None) -> tuple[str, str]:
    """The work directory, and the command (without a mode) that comes back to it."""
    command = f'python main.py --config={config_flag}'
    if workdir:
        return workdir, f'{command} --workdir={workdir}'
    path, _, argument = config_flag.partition(':')
    return os.path.join('runs', Path(path).stem + (f'-{argument}' if argument else '')), command


def _known_configs() -> list[str]:
    return sorted(map(str, Path('configs').glob('*.py'))) or ['configs/char.py']


def _leave(error: Exception | str, status: int):
    """One line on standard error, then the end."""
    message = str(error)
    if 'whilst parsing config file' in message:
        # ml_collections wraps what a config file raised in its whole traceback.
        message = message.strip().splitlines()[-1].split(': ', 1)[-1]
    print(f'main.py: {" ".join(message.split())}', file=sys.stderr)
    sys.exit(status)
