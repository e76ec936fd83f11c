"""Removes trailing whitespace and ends files with one newline; fails if it changed one.

python scripts/tidy_text.py FILE...
"""

import sys
from pathlib import Path


def tidy(content: bytes) -> bytes:
    """The content without whitespace at the end of a line, and with one newline at its end."""
    lines = [line.rstrip(b' \t\r') for line in content.split(b'\n')]
    return b'\n'.join(lines).rstrip(b'\n') + b'\n' if content.strip() else b''


def main(names: list[str]) -> int:
    """Tidies files; the exit status is 1 if one was changed."""
    changed = False
    for path in map(Path, names):
        content = path.read_bytes()
        if content != tidy(content):
            path.write_bytes(tidy(content))
            print(f'tidied {path}')
            changed = True
    return int(changed)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
