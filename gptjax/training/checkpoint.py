"""Checkpoints: Orbax's CheckpointManager, with the checks that it lacks.

Orbax names a step only when it is complete, but does not notice a file that is damaged later. Each
step therefore has a manifest of SHA-256 sums, written before the step gets its name and verified
before it is used. A step holds the leaves of the state under their dotted names.
"""

import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from gptjax.console import Say
from gptjax.errors import UserError
from gptjax.file_sums import MANIFEST, damage_of, sums_of
from gptjax.thread_errors import ThreadErrors
from gptjax.training.steps import TrainState

STEP = re.compile('0|[1-9][0-9]{0,9}')  # the name of a folder
ITEM = 'default'  # Orbax's name of the folder with the arrays

# Saving and donating may overlap, and restored buffers cannot always be donated: both get a copy.
_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


class Checkpoints:
    """The checkpoints of a work directory: one folder a step."""

    def __init__(self, folder: Path, keep: int = 2, say: Say = print) -> None:
        """Keeps the `keep` newest steps and the one with the lowest validation loss.

        `say` receives a line about each damaged checkpoint. The folder is made by `save`.
        """
        self.folder = folder.absolute()  # Orbax takes no relative paths.
        self._keep = keep
        self._say = say
        self._saving = 0
        self._manager: ocp.CheckpointManager | None = None
        self._errors, self._failed = ThreadErrors(), False

    def saved(self) -> list[int]:
        """All complete steps, newest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()  # Unreadable: an OSError.
        names = [path.name for path in found if path.is_dir()]
        return sorted((int(name) for name in names if STEP.fullmatch(name)), reverse=True)

    def best_first(self) -> list[int]:
        """All complete steps, the lowest validation loss first."""
        return sorted(self.saved(), key=self.val_loss)

    def val_loss(self, step: int) -> float:
        """The validation loss that was saved with a step; infinity if it cannot be read."""
        path = self.folder / str(step) / 'metrics' / 'metrics'
        try:
            return float(json.loads(path.read_text())['val_loss'])
        except (OSError, ValueError, KeyError, TypeError):
            return float('inf')

    def save(self, state: TrainState, val_loss: float) -> None:
        """Starts saving in the background; the state may be donated as soon as this returns.

        Raises UserError if this or the previous save failed.
        """
        try:
            manager = self._open_manager()
            manager.wait_until_finished()
            self._saving = int(state.step)
            tree = ocp.args.StandardSave(_copy(flat_leaves(state)))
            metrics = {'val_loss': float(val_loss)}
            if not manager.save(self._saving, args=tree, metrics=metrics):
                raise RuntimeError(f'Orbax refuses it after steps {self.saved()}')
        except Exception as error:
            self._fail(error)

    def close(self) -> None:
        """Waits for what is being saved; raises UserError if it failed."""
        try:
            if self._manager is not None:
                self._manager.wait_until_finished()
                self._manager.close()
                self._manager = None
                self._errors.stop()
                if self._errors.path and not self._failed:
                    self._say(f'All checkpoints are saved, after errors: {self._errors.path}')
        except Exception as error:
            self._fail(error)

    def restore(self, like: TrainState, candidates: list[int], part: str = '') -> tuple[int, Any]:
        """The first candidate that is sound, with its step; each damaged one before it is named.

        `like` has abstract arrays (jax.ShapeDtypeStruct) with their shardings. With `part`, that
        field of the state alone is read, to be used and not donated. Raises UserError if no
        candidate is sound, or if a sound one holds other arrays.
        """
        for step in candidates:
            if self._is_sound(step):
                return step, self._restore(like, step, part)
        raise UserError(
            f'no sound checkpoint in {self.folder}; restore one from a backup, '
            'or train again with another work directory'
        )

    def resume(self, like: TrainState) -> tuple[int, TrainState]:
        """The newest sound step, with its state, for a run that goes on from there.

        Damaged steps are named and moved out of the way of new ones; nothing is deleted. Raises
        UserError as `restore` does; then nothing is moved either.
        """
        step, state = self.restore(like, self.saved())
        newer = [other for other in self.saved() if other > step]
        older = [other for other in self.saved() if other < step]
        damaged_steps = newer + [other for other in older if not self._is_sound(other)]
        for damaged in damaged_steps if jax.process_index() == 0 else ():
            aside = self.folder.with_name(f'{self.folder.name}-damaged')
            aside.mkdir(exist_ok=True)
            target, i = aside / str(damaged), 0
            while target.exists():
                target, i = aside / f'{damaged}-{i + 1}', i + 1
            (self.folder / str(damaged)).rename(target)
            self._say(f'Moved it to {target}')
        return step, state

    def _restore(self, like: TrainState, step: int, part: str) -> Any:
        path = self.folder / str(step) / ITEM
        wanted = flat_leaves(like)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            saved = checkpointer.metadata(path).item_metadata.tree
            if differences := list(_differences(saved, wanted)):
                raise UserError(
                    f'checkpoint {path} does not fit the configuration: {"; ".join(differences)}; '
                    'use the one that it was trained with'
                )
            asked = {name: leaf for name, leaf in wanted.items() if name.startswith(part)}
            how = ocp.checkpoint_utils.construct_restore_args(asked)
            args = ocp.args.PyTreeRestore(asked, restore_args=how, partial_restore=True)
            found = checkpointer.restore(path, args)
        found = found if part else _copy(found)
        structure = jax.tree.structure(getattr(like, part) if part else like)
        return jax.tree.unflatten(structure, [found[name] for name in asked])  # in their order

    def _open_manager(self) -> ocp.CheckpointManager:
        if self._manager is None:
            val_loss = operator.itemgetter('val_loss')
            best = BestN(get_metric_fn=val_loss, reverse=True, n=1)
            options = ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(self._keep), best]),
                best_fn=val_loss,  # Without it, metrics are not saved.
                best_mode='min',
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
            )
            self._manager = ocp.CheckpointManager(self.folder, options=options)
            self._errors = ThreadErrors()
            self._errors.start()
        return self._manager

    def _write_manifest(self) -> None:
        """Orbax calls this when all files of a step are written and it has no final name yet."""
        if jax.process_index() != 0:
            return
        unnamed = list(self.folder.glob(f'{self._saving}.*'))
        folder = unnamed[0] if unnamed else self.folder / str(self._saving)
        (folder / MANIFEST).write_text(json.dumps(sums_of(folder), indent=1) + '\n')

    def _is_sound(self, step: int) -> bool:
        if damage := damage_of(self.folder / str(step)):
            self._say(f'Warning: checkpoint {step} in {self.folder} is damaged: {damage}')
        return not damage

    def _fail(self, error: Exception) -> NoReturn:
        self._failed = True
        reason = ' '.join(str(error).split())
        from_system = re.search(r"([^:]+) \[os_error_code='\d+'", reason)
        reason = from_system[1].strip() if from_system else reason[:300]
        saved = self.saved()
        then = (
            f'continues from step {saved[0]}' if saved else 'has no checkpoint yet and starts anew'
        )
        raise UserError(
            f'checkpoint {self._saving} could not be saved in {self.folder}: {reason}; make room '
            f'or mend the folder, then train again: the run {then}'
            + (f' (all errors: {self._errors.path})' if self._errors.path else '')
        ) from error


def flat_leaves(tree: Any) -> dict[str, jax.Array]:
    """The leaves of a tree by their dotted names, in its order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in leaves}


def _differences(saved: dict, wanted: dict) -> Iterator[str]:
    """Both sides of every mismatch: names, shapes, types."""
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in saved:
            yield f'{name} is missing from the checkpoint'
        elif name not in wanted:
            yield f'{name} is only in the checkpoint'
        else:
            there, here = _describe(saved[name]), _describe(wanted[name])
            if there != here:
                yield f'{name} is {there} in the checkpoint and {here} here'


def _describe(array: jax.Array | jax.ShapeDtypeStruct) -> str:
    return f'{jnp.dtype(array.dtype).name}{list(array.shape)}'
