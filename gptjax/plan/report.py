"""A plan for people: a table and a picture."""

from pathlib import Path
from typing import Any

from gptjax.chips import CHIPS
from gptjax.plan.units import in_bytes, in_seconds

PARTS = {  # of the memory of a device
    'parameters': 'parameters',
    'gradients': 'gradients',
    'optimizer': 'optimizer state',
    'copies': 'copies of the weights to compute with',
    'activations': 'activations of a micro-batch',
    'logits': 'logits',
}
COLORS = ('#1f4e79', '#d1495b', '#4f81b0', '#9bb8d3', '#edae49', '#8d96a3', '#66a182')


def table(plan: dict[str, Any]) -> str:
    """All figures of a plan as lines of text."""
    chip = CHIPS[plan['chip']]
    vocabulary, step = plan['vocabulary'], plan['seconds']
    attention = "cuDNN's flash attention" if plan['flash_attention'] else "XLA's attention"
    lines = [
        f'{plan["name"]}: {plan["parameters"] / 1e6:,.1f}M parameters, vocabulary of '
        f'{vocabulary["size"]:,} ({vocabulary["known"]})',
        f'{plan["devices"]} x {chip.kind}, {mesh_in_words(plan)}, in {plan["computes_in"]}, '
        f'{attention}',
        '',
        'Memory of a device, closed form',
        *(_row(words, in_bytes(plan['bytes'][part])) for part, words in _parts(plan).items()),
        _row('total', f'{in_bytes(plan["bytes"]["total"])} of {in_bytes(chip.memory_bytes)}'),
        _row('fits, with a tenth left free', 'yes' if plan['fits'] else 'NO'),
        _row(
            'activations with train.remat',
            ', '.join(f'{remat}: {in_bytes(n)}' for remat, n in plan['activations'].items()),
        ),
        _row('key-value cache of a text', in_bytes(plan['cache_of_a_text'])),
        '',
        *_compiled(plan),
        '',
        'Time of an optimizer step: the slowest resource decides',
        *(_row(name, in_seconds(step[f'{name}_s'])) for name in ('compute', 'memory')),
        _row('communication', in_seconds(step['communication_s'])),
        *(
            [_row('optimizer state to and from the host', in_seconds(step['offload_s']))]
            * plan['offload']
        ),
        _row('step', in_seconds(step['step_s'])),
        _row('bound by', plan['bound_by']),
        _row('FLOPs a step', f'{plan["flops"]["step"]:.3g} ({plan["mfu"]:.0%} MFU)'),
        _row('tokens a second', f'{plan["tokens_per_s"]:,.0f}'),
        _row(
            'whole training',
            f'{plan["training"]["steps"]:,} steps, {plan["training"]["tokens"]:,} tokens, '
            f'{in_seconds(3600 * plan["training"]["hours"])}',
        ),
        '',
        'Best meshes (closed form)',
        *map(_candidate, plan['best']),
    ]
    return '\n'.join(lines)


def mesh_in_words(candidate: dict[str, Any]) -> str:
    """As 'data=8 x fsdp=1 x tensor=1, accumulate=4, remat=block, offload'."""
    sizes = ' x '.join(f'{name}={n}' for name, n in candidate['mesh'].items())
    again = '' if candidate['remat'] == 'none' else f', remat={candidate["remat"]}'
    offload = ', offload' if candidate['offload'] else ''
    return f'{sizes}, accumulate={candidate["accumulate"]}{again}{offload}'


def _parts(plan: dict[str, Any]) -> dict[str, str]:
    """The words for each part of the memory."""
    late = {'optimizer': 'optimizer state (on the device for the update only)'}
    has_mean = {'mean': 'running mean of the parameters'} if plan['bytes']['mean'] else {}
    return PARTS | (late if plan['offload'] else {}) | has_mean


def _row(name: str, value: str) -> str:
    return f'  {name:<42}  {value}'


def _compiled(plan: dict[str, Any]) -> list[str]:
    compiled = plan['compiled']
    blocks = ' and '.join(map(str, compiled['blocks']))
    whole = compiled['extrapolated_to']
    how = f'{blocks} blocks, extrapolated to {whole}' if whole else f'all {blocks} blocks'
    lines = [
        f"The same step by XLA's CPU compiler ({how})",
        _row('state and batch', in_bytes(compiled['bytes']['argument'])),
        _row(
            'everything else', f'{in_bytes(compiled["bytes"]["temp"])} (on CPUs, not on the chip)'
        ),
    ]
    for row in compiled['collectives']:
        axes = f' over {row["axes"]}' if row['axes'] else ''
        lines.append(
            _row(f'{row["kind"]}{axes}', f'{in_bytes(row["bytes"])} in {row["times"]:,.0f}')
        )
    if compiled['collectives']:
        lines.append(_row('time of these', in_seconds(compiled['communication_s'])))
    else:
        lines.append(_row('collectives', 'none'))
    return lines


def _candidate(candidate: dict[str, Any]) -> str:
    fits = '' if candidate['fits'] else ', does not fit'
    return _row(
        mesh_in_words(candidate),
        f'{in_bytes(candidate["bytes"]["total"])}, {in_seconds(candidate["seconds"]["step_s"])} '
        f'a step{fits}',
    )


def draw(plan: dict[str, Any], path: Path) -> None:
    """Two panels of bars: memory by part, and the step by resource."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chip = CHIPS[plan['chip']]
    figure = Figure(figsize=(10, 4.2), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(f'{plan["name"]} on {plan["devices"]} x {chip.kind}, {mesh_in_words(plan)}')
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    parts = _parts(plan)
    top = len(parts)
    for i, part in enumerate(parts):
        n = plan['bytes'][part]
        left.barh(top - i, n / 1e9, color=COLORS[i])
        left.text(n / 1e9, top - i, f' {in_bytes(n)}', va='center', fontsize=9)
    total = plan['bytes']['total']
    left.barh(0, total / 1e9, color='#333333')
    left.text(total / 1e9, 0, f' {in_bytes(total)}', va='center', fontsize=9)
    left.set_yticks(range(top, -1, -1), [*parts.values(), 'total'])
    left.axvline(chip.memory_bytes / 1e9, color='black', linestyle='--')
    left.set_xlim(0, max(chip.memory_bytes, total) / 1e9 * 1.25)
    left.set_title('memory of a device')
    left.set_xlabel('GB; dashed: what the chip has')
    resources = ['compute', 'memory', 'communication'] + ['offload'] * plan['offload']
    slowest = max(plan['seconds'][f'{name}_s'] for name in resources)
    for i, name in enumerate(resources):
        s = plan['seconds'][f'{name}_s']
        right.bar(i, 1e3 * s, color='#1f4e79' if s == slowest else '#9bb8d3')
        right.text(i, 1e3 * s, in_seconds(s), ha='center', va='bottom', fontsize=9)
    names = {'communication': 'communi-\ncation', 'offload': 'to and from\nthe host'}
    right.set_xticks(range(len(resources)), [names.get(name, name) for name in resources])
    right.set_title('time of an optimizer step')
    right.set_ylabel('ms; the slowest resource decides' + ', the last is added' * plan['offload'])
    right.margins(y=0.12)
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=110)
