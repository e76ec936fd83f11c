"""What the curves of a run say, in words, with the knob to turn."""

from gptjax.training.metrics import Row

NOTICEABLE = 0.01  # a change of the loss by this share means something
CLOSE = 0.05  # training and validation loss that differ by less are alike


def diagnose(rows: list[Row], *, comparable: bool = True) -> str:
    """Reads the rows of metrics.jsonl; empty if there are too few evaluations to tell.

    The training loss is the one evaluated without dropout, where there is one. Without that it is
    not `comparable` if validation is with a running mean of the parameters, which is better.
    """
    points = [
        (
            row['step'],
            row['val_loss'],
            row['train_eval_loss' if 'train_eval_loss' in row else 'train_loss'],
        )
        for row in rows
        if 'val_loss' in row and 'train_loss' in row
    ]
    if len(points) < 3:
        return ''
    best_step, best, train_at_best = min(points, key=lambda point: point[1])
    last_step, val, train = points[-1]
    if val > best * (1 + NOTICEABLE) and train < train_at_best:
        return (
            f'Overfitting since step {best_step}: training still falls, validation rises. Raise '
            'model.dropout, use more text or a smaller model; sampling uses the best step'
        )
    # What the last fifth of the run brought, however often it was evaluated.
    before = [point for point in points[:-1] if point[0] <= 0.8 * last_step] or points[:1]
    if best < min(point[1] for point in before) * (1 - NOTICEABLE):
        return 'Still improving: raise train.steps'
    if not (comparable or 'train_eval_loss' in rows[-1]):
        return 'Validation stands still: more steps alone will not help'
    if val - train < CLOSE * val:
        return (
            'Underfitting: training and validation stand still, close together. Raise '
            'model.n_embd, model.n_layer or train.steps'
        )
    return (
        'Learnt what it can: validation stands still above training. More text or '
        'model.dropout would help more than more steps'
    )
