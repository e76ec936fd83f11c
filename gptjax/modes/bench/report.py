"""The figures of a benchmark for people: a table and a bar chart."""

from pathlib import Path

NAMES = {
    'jax': 'gptjax',
    'torch_eager': 'PyTorch, eager',
    'torch_compile': 'PyTorch, compiled',
    'torch_eager_bfloat16': 'PyTorch, eager, bf16',
    'torch_compile_bfloat16': 'PyTorch, compiled, bf16',
    'huggingface': 'Hugging Face, cached',
    'ctranslate2': 'CTranslate2, float32',
}


def table(result: dict) -> str:
    """All measurements as lines of text; ratios are ours over theirs."""
    lines = [f'{"":<26}{"tokens/s":>12}{"least":>12}{"most":>12}{"of limit":>10}{"ratio":>8}  all']
    for title, group in _groups(result):
        most = limit(result, group)
        lines.append(f'{title}; the limit is {most:,.0f} tokens/s')
        for name, figures in group['sides'].items():
            speeds = (figures[key] for key in ('tokens_per_s', 'least', 'most'))
            line = f'  {NAMES[name]:<24}' + ''.join(f'{speed:>12,.0f}' for speed in speeds)
            line += f'{figures["tokens_per_s"] / most:>10.2f}'
            if name in group['ratios']:
                ratios = group['ratios'][name]
                spread = f'{min(ratios["all"]):.2f} to {max(ratios["all"]):.2f}'
                line += f'{ratios["median"]:>8.2f}  {spread}'
            lines.append(line)
    for name, figures in result['train']['sides'].items():
        mfu = f', {figures["mfu"]:.1%} MFU' if figures['mfu'] is not None else ''
        lines.append(
            f'{NAMES[name]}: {figures["step_ms"]:.1f} ms a step, '
            f'{figures["flops_per_s"] / 1e9:.1f} GFLOP/s{mfu}, '
            f'first step {figures["first_step_s"]:.1f} s, '
            f'{result["about"][name]["resident_bytes"] / 1e6:,.0f} MB of main memory'
        )
    most = result['limit']
    lines.append(
        f'Limit: {1e3 * most["step_s"]:.1f} ms for the matrix products of a step '
        f'({most["flops_per_s"] / 1e9:.0f} GFLOP/s); {most["weight_bytes"] / 1e6:,.1f} MB of '
        f'weights, read at {most["bytes_per_s"] / 1e9:.1f} GB/s, for the tokens of a decoding step'
    )
    return '\n'.join(lines)


def limit(result: dict, group: dict) -> float:
    """Tokens a second that the machine allows: it reads all weights, and multiplies with them."""
    most = result['limit']
    if 'batch_size' not in group:
        return result['tokens_per_step'] / most['step_s']
    rows = group['batch_size']
    flops = 2 * rows * most['weights']
    reading_s = most['weight_bytes'] / most['bytes_per_s']
    return rows / max(reading_s, flops / most['flops_per_s'])


def draw(result: dict, path: Path) -> None:
    """A panel of bars (tokens a second, with least and most) for each measurement."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = _groups(result)
    figure = Figure(figsize=(4 * len(groups), 4), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (title, group) in zip(figure.subplots(1, len(groups)), groups, strict=True):
        for i, (name, figures) in enumerate(group['sides'].items()):
            median = figures['tokens_per_s']
            spread = [[median - figures['least']], [figures['most'] - median]]
            color = '#1f4e79' if name == 'jax' else '#9bb8d3'
            axes.bar(i, median, color=color, yerr=spread, capsize=4, width=0.7)
        axes.set_xticks(
            range(len(group['sides'])), [NAMES[n].replace(', ', '\n') for n in group['sides']]
        )
        axes.set_title(title)
        axes.set_ylabel('tokens/s')
        axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=120)


def _groups(result: dict) -> list[tuple[str, dict]]:
    groups = [('Training', result['train'])]
    for group in result['generate'].values():
        if isinstance(group, dict):
            title = f'Generation, {group["new_tokens"]} tokens, batch {group["batch_size"]}'
            groups.append((title, group))
    return groups
