"""The command line's manners: one line for each mistake, and no traceback.

absl and ml_collections report a missing config file late and an unknown knob as a traceback; what
they cannot say well is checked here, before them.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.errors import UserError, nearest, nearest_knob

USER_MISTAKE = 1
BAD_FLAGS = 2
INTERRUPTED = 130
HELP = r'--?help\w*'


def run(main: Callable[[list[str]], int], flag_values: flags.FlagValues) -> None:
    """Parses the flags, calls main with what is left, and exits with its status."""

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            sys.argv[:] = check_config_flags(list(argv))  # ml_collections reads it there again.
            return flag_values(sys.argv)
        except SystemExit:
            if any(re.fullmatch(HELP, arg) for arg in argv):
                sys.exit(0)  # absl leaves with 1 after --help, which is no failure.
            _leave('the config file called sys.exit()', BAD_FLAGS)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
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
        except OSError as error:
            where = f'{error.filename}: ' if error.filename else ''
            _leave(
                f'{where}{error.strerror}; check the path, its owner and the space', USER_MISTAKE
            )
        except KeyboardInterrupt:
            return INTERRUPTED

    logging.set_verbosity(logging.ERROR)  # Orbax tells its life at lower ones.
    app.run(guarded, flags_parser=parse)


def check_config_flags(argv: list[str]) -> list[str]:
    """Checks --config and its overrides, and puts --config first, where ml_collections wants it.

    Of several --config, the last one counts, as of any flag.

    Raises:
      UserError: the file is missing or an override names no knob.
    """
    program, *args = argv
    config, rest = None, []
    while args:
        arg = args.pop(0)
        name, _, value = arg.lstrip('-').partition('=')
        if not arg.startswith('-') or name != 'config':
            rest.append(arg)
        elif '=' in arg or args:
            config = value if '=' in arg else args.pop(0)
    if config is None:
        if any(re.fullmatch(HELP, arg) for arg in rest):
            return argv
        raise UserError(f'--config is missing; try --config={_known_configs()[0]}')
    path = Path(config.split(':')[0])
    # Not path.is_file(): that raises where a folder above is closed.
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise UserError(
            f'--config={path} is not a file that can be read; '
            + nearest(path.name, _known_configs(), os.path.basename)
        )
    known = [f'--config.{name}' for name, _ in flatten(Config())]
    for arg in rest:
        override = re.match(r'--?(?:no)?config\.([^=]*)', arg)
        if override and f'--config.{override[1]}' not in known:
            name = arg.split('=')[0]
            raise UserError(f'{name} is no knob; {nearest_knob(name, known)}')
    return [program, f'--config={config}', *rest]


def command_to_repeat(argv: Sequence[str]) -> str:
    """The command line without what one would change next: its mode, prompts and output."""
    changing = ('mode', 'prompt', 'prompt_file', 'json', 'nojson', 'source', 'target', 'html')
    kept, args = [], list(argv[1:])
    while args:
        arg = args.pop(0)
        if not arg.startswith('-') or arg.lstrip('-').partition('=')[0] not in changing:
            kept.append(arg)
        elif '=' not in arg and not arg.endswith('json') and args:
            args.pop(0)  # Its value.
    return shlex.join(['python', 'main.py', *kept])


def with_flags(message: str) -> str:
    """A message whose remedy, what follows the first '; ', names knobs by their flags."""
    problem, separator, remedy = message.partition('; ')
    if remedy.startswith(('did you mean', 'known are')):  # Names in a file, and not to be typed.
        return message
    knobs = '|'.join(re.escape(name) for name, _ in flatten(Config()) if '.' in name)
    names = rf'(?<![\w.-])({knobs})(?!\w|\.\w)'
    return problem + separator + re.sub(names, r'--config.\1', remedy)


def read_prompts(prompts: Sequence[str], prompt_file: str | None) -> tuple[str, ...]:
    """All prompts: those of the flag, then the lines of the file (- is standard input).

    Empty lines are among them: what they mean depends on the task.

    Raises:
      UserError: the file cannot be read, is not UTF-8 or holds no prompt.
    """
    if prompt_file is None:
        return tuple(prompts)
    try:
        if prompt_file == '-' and sys.stdin is None:
            raise UserError('--prompt_file=- needs a standard input; it is closed')
        source = sys.stdin.fileno() if prompt_file == '-' else prompt_file
        with open(source, encoding='utf-8-sig', newline='\n') as file:
            text = file.read()
    except OSError as error:
        raise UserError(f'cannot read --prompt_file={prompt_file}: {error.strerror}') from None
    except UnicodeDecodeError as error:
        raise UserError(
            f'--prompt_file={prompt_file} is not UTF-8 at byte {error.start}; convert it with iconv'
        ) from None
    # Not splitlines(), which cuts at form feeds and other rarities too.
    lines = [line.rstrip('\r') for line in text.split('\n')]
    if not any(lines):
        raise UserError(f'--prompt_file={prompt_file} holds no prompt; write one on each line')
    return (*prompts, *(lines if lines[-1] else lines[:-1]))


def check_workdir(workdir: str) -> None:
    """Raises UserError for a name that cannot be used."""
    if not workdir or not workdir.isprintable():
        raise UserError(f'--workdir={workdir!r} is no usable name; give a folder such as runs/mine')
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f'--workdir={workdir} is a file; give a folder such as runs/mine')


def default_workdir(config: str) -> str:
    """runs/<name of the config file>[-<argument>]."""
    path, _, argument = config.partition(':')
    return os.path.join('runs', Path(path).stem + (f'-{argument}' if argument else ''))


def _known_configs() -> list[str]:
    first = 'configs/char.py'
    others = sorted(map(str, Path('configs').glob('*.py')))
    return [first, *(name for name in others if name != first)]


def _leave(error: Exception | str, status: int):
    """One line on standard error, then the end."""
    message = str(error)
    if 'whilst parsing config file' in message:
        # ml_collections wraps what a config file raised in its whole traceback.
        message = message.strip().splitlines()[-1].split(': ', 1)[-1]
    if isinstance(error, UserError):
        message = with_flags(message)
    print(f'main.py: {" ".join(message.split())}', file=sys.stderr)
    sys.exit(status)
