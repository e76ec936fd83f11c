"""--mode=train: trains or continues a work directory, then shows what came of it."""

from gptjax import pages, processes
from gptjax.console import say
from gptjax.modes import report, sample
from gptjax.modes.request import Request, open_run
from gptjax.report import record
from gptjax.trainer import train_run

SAMPLE_TOKENS = 384  # shown after training


def run(request: Request) -> int:
    """Returns 0, or 128 plus the number of the signal that stopped the run."""
    workdir, steps = request.workdir, request.config.train.steps
    outcome = train_run(request.config, workdir, command=request.command)
    if outcome is None:
        say(
            f'{workdir} is finished: {steps} steps are done. Train on with '
            f'--config.train.steps={2 * steps}, or start anew with another --workdir'
        )
        return 0
    if outcome.stopped_by:
        say(f'Stopped by {outcome.stopped_by.name} and saved at step {int(outcome.state.step)}.')
        say(f'Continue with:\n  {request.command} --mode=train')
        return 128 + outcome.stopped_by
    del outcome  # Its state is as large as all that comes now.
    run = open_run(request)
    evaluated = run.evaluate()
    say(f'Validation, whole split, step {run.step}: {evaluated}')
    if verdict := run.task.verdict(run.metrics):
        say(f'{verdict}.')
    say(f'Curves: {workdir / "loss.png"}. A sample:\n')
    tokens = {'max_new_tokens': SAMPLE_TOKENS, 'num_samples': 1}
    sample.show_own(run, **{k: v for k, v in tokens.items() if f'sample.{k}' in run.task.reads})
    path = workdir / 'report.html'
    if not processes.alone():
        say('\nFor a report, run in one process:')
        say(f'  {request.command} --mode=report')
    elif pages.is_ours(path):
        report.write(report.make(record.read(workdir), run, evaluated=evaluated.figures), path)
        say(f'\nReport: {path}')
    say('For more, type:')
    say(f'  {request.command} --mode=sample')
    return 0
