"""Numbers with units, for people."""


def in_bytes(n: float) -> str:
    """As '1.3 GB', in powers of a thousand."""
    for unit in ('B', 'kB', 'MB', 'GB', 'TB'):
        if n < 1000 or unit == 'TB':
            break
        n /= 1000
    return f'{n:,.0f} {unit}' if unit == 'B' or n >= 100 else f'{n:,.1f} {unit}'


def in_seconds(s: float) -> str:
    """As '12.3 ms', '4.5 s', '6.7 minutes' or '8.9 hours'."""
    for unit, length in (('hours', 3600.0), ('minutes', 60.0), ('s', 1.0), ('ms', 1e-3)):
        if s >= length:
            return f'{s / length:,.1f} {unit}'
    return f'{1e6 * s:.1f} us'
