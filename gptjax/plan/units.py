"""Numbers with units, for people."""


def in_bytes(n: float) -> str:
    """As '1.3 GB', in powers of a thousand."""
    for unit in ('B', 'kB', 'MB', 'GB', 'TB'):
        if n < 1000 or unit == 'TB':
            break
        n /= 1000
    return f'{n:,.0f} {unit}' if unit == 'B' or n >= 100 else f'{n:,.1f} {unit}'


def in_seconds(s: float) -> str:
    """As '12.3 ms' or '4.5 s'."""
    if s < 1e-3:
        return f'{1e6 * s:.0f} us'
    return f'{1e3 * s:.1f} ms' if s < 1 else f'{s:.1f} s'
