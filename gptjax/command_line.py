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
from typing import NoReturn

from absl import app, flags, logging

from gptjax import recipes
from gptjax.config import Config
from gptjax.config.schema import flatten
from gptjax.console import speaker
from gptjax.errors import UserError, nearest, nearest_knob

USER_MISTAKE = 1
BAD_FLAGS = 2
INTERRUPTED = 130
HELP = r'--?help\w*'


def run(
    main: Callable[[list[str]], int],
    define_flags: Callable[[flags.FlagValues, list[str]], None],
    usage: str,
    before: Callable[[list[str]], None] = lambda argv: None,
) -> None:
    """Parses sys.argv into absl's FLAGS, calls main with what is left, and exits with its status.

    `define_flags` gets FLAGS and the checked arguments; --help prints `usage` and the flags.
    `before` gets them before the config file is read.
    """

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            if any(re.fullmatch(HELP, arg) for arg in argv):
                define_flags(flags.FLAGS, [])
                own_flags = flags.FLAGS.module_help(define_flags.__module__)
                print(usage.replace('PROGRAM', program(argv)), own_flags, sep='\n')
                sys.exit(0)
            checked = check_config_flags(expand_flag_files(argv))
            define_flags(flags.FLAGS, checked)
            before(checked)
            return flags.FLAGS(checked)
        except SystemExit as error:
            if error.code == 0:
                raise
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

    logging.set_verbosity(logging.ERROR)  # At lower levels Orbax logs every step it takes.
    app.run(guarded, flags_parser=parse)


def expand_flag_files(argv: Sequence[str]) -> list[str]:
    """The arguments with the content of each --flagfile; raises UserError if one is unreadable."""
    try:
        return [argv[0], *flags.FLAGS.read_flags_from_files(list(argv[1:]), force_gnu=True)]
    except flags.CantOpenFlagFileError as error:
        reason = str(error).partition('flagfile: ')[2]
        raise UserError(f'cannot read the file of --flagfile ({reason}); check its path') from None
    except UnicodeDecodeError:
        raise UserError('the file of --flagfile is no text; give a flag a line') from None


def check_config_flags(argv: list[str]) -> list[str]:
    """Checks --config and its overrides, and puts --config first, where ml_collections wants it.

    The name of a built-in recipe becomes the path of its file. Raises UserError where there is
    neither file nor recipe, or an override names no setting.
    """
    configs, rest = _take(argv[1:], 'config')
    if not configs:
        raise UserError(f'--config is missing; try --config={_known_configs("configs/")[0]}')
    name, colon, argument = configs[-1].partition(':')  # The last one counts, as of any flag.
    path = name
    if not _can_be_read(path) and Path(name).name == name:
        path = str(recipes.folder() / f'{name}.py')
    if not _can_be_read(path):
        known = _known_configs(name)
        raise UserError(
            f'--config={name} is not a file that can be read, nor a built-in recipe; '
            + nearest(Path(name).stem, known, lambda other: Path(other).stem)
        )
    known = [f'--config.{name}' for name, _ in flatten(Config())]
    for arg in rest:
        override = re.match(r'--?(?:no)?config\.([^=]*)', arg)
        if override and f'--config.{override[1]}' not in known:
            setting = arg.split('=')[0]
            raise UserError(f'unknown setting {setting}; {nearest_knob(setting, known)}')
    return [argv[0], f'--config={path}{colon}{argument}', *rest]


def program(argv: Sequence[str]) -> str:
    """How the program was started, as one types it."""
    return 'python main.py' if Path(argv[0]).name == 'main.py' else 'gptjax'


def command_to_repeat(argv: Sequence[str]) -> str:
    """The command line without what one would change next: its mode, prompts and output."""
    changing = (
        *('mode', 'prompt', 'prompt_file', 'json', 'nojson', 'source', 'target', 'html'),
        *('against', 'verify', 'noverify', 'live', 'nolive', 'check', 'nocheck'),
        *('coordinator', 'num_processes', 'process_id'),
    )
    _, kept = _take(argv[1:], *changing)
    return shlex.join([*program(argv).split(), *kept])


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

    Empty lines are among them: what they mean depends on the task. Raises UserError if the file
    cannot be read, is not UTF-8 or holds no prompt.
    """
    if prompt_file is None:
        return tuple(prompts)
    try:
        if prompt_file == '-' and sys.stdin is None:
            raise UserError('--prompt_file=- needs a standard input; it is closed')
        source = sys.stdin.fileno() if prompt_file == '-' else prompt_file
        with open(source, encoding='utf-8-sig', newline='\n') as file:
            # Unlike splitlines(), this cuts at line feeds alone, and not at form feeds too.
            lines = [line.rstrip('\r\n') for line in file]
    except OSError as error:
        raise UserError(f'cannot read --prompt_file={prompt_file}: {error.strerror}') from None
    except UnicodeDecodeError as error:
        raise UserError(
            f'--prompt_file={prompt_file} is not UTF-8 at byte {error.start}; convert it with iconv'
        ) from None
    if not any(lines):
        raise UserError(f'--prompt_file={prompt_file} holds no prompt; write one on each line')
    return (*prompts, *lines)


def check_workdir(workdir: str) -> None:
    """Raises UserError for a name that cannot be used."""
    # Names in Persian have joiners, which count as not printable.
    if not workdir or not re.sub('[\u200c\u200d]', '', workdir).isprintable():
        raise UserError(f'--workdir={workdir!r} is no usable name; give a folder such as runs/mine')
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f'--workdir={workdir} is a file; give a folder such as runs/mine')


def default_workdir(config: str) -> str:
    """runs/<name of the config file>[-<argument>]."""
    path, _, argument = config.partition(':')
    return os.path.join('runs', Path(path).stem + (f'-{argument}' if argument else ''))


def _take(args: Sequence[str], *names: str) -> tuple[list[str], list[str]]:
    """(values of the flags of these names, all other arguments)."""
    values, rest, args = [], [], list(args)
    while args:
        arg = args.pop(0)
        name, equals, value = arg.lstrip('-').partition('=')
        if not arg.startswith('-') or name not in names:
            rest.append(arg)
        elif equals:
            values.append(value)
        elif args and not name.endswith(('json', 'verify', 'live')):  # Switches have no value.
            values.append(args.pop(0))
    return values, rest


def last_value(argv: Sequence[str], name: str) -> str:
    """The value of a flag, before flags are parsed; empty if it is not there."""
    values, _ = _take(argv[1:], name)
    return values[-1] if values else ''


def _can_be_read(path: str) -> bool:
    # Not Path.is_file(): that raises where a folder above is closed.
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _known_configs(like: str) -> list[str]:
    """The files in configs/ if `like` is a path and they are there, else all recipes' names."""
    paths = Path('configs').glob('*.py') if '/' in like or like.endswith('.py') else ()
    names = sorted(map(str, paths)) or sorted(p.stem for p in recipes.folder().glob('*.py'))
    return sorted(names, key=lambda name: Path(name).stem != 'char')  # The one to begin with.


def _leave(error: Exception | str, status: int) -> NoReturn:
    """One line on standard error, then the end."""
    message = str(error)
    if 'whilst parsing config file' in message:
        # ml_collections wraps what a config file raised in its whole traceback.
        message = message.strip().splitlines()[-1].split(': ', 1)[-1]
    if isinstance(error, UserError):
        message = with_flags(message)
    name = program(sys.argv).split()[-1]
    print(f'{name}: {speaker()}{" ".join(message.split())}', file=sys.stderr)
    sys.exit(status)
