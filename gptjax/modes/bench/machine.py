"""What a benchmark ran on."""

import re
import resource
import sys
from pathlib import Path


def resident_bytes() -> int:
    """The most main memory that this process had so far."""
    status = Path('/proc/self/status')
    if status.exists():
        # On Linux getrusage also counts the parent as it was at the fork, which may be larger.
        (kilobytes,) = re.findall(r'VmHWM:\s+(\d+) kB', status.read_text())
        return int(kilobytes) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == 'darwin' else 1024)
