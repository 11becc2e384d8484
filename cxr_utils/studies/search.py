"""Settings that are drawn while a study goes on: at random, or by Optuna from what came out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna import distributions
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ..data.splits import chosen_on
from ..files import read_json, within
from ..paths import RunFolder
from ..study_plan import BASE, Cell, Range, Sample, Study


class Search:
    """The trials of a study, one for each setting, kept in its folder by Optuna.

    A search draws by the tree-structured Parzen estimator (Bergstra et al. 2011) and ends a run
    whose validation loss is worse than the median of the others' at that epoch; a sample draws at
    random. The first setting is the base, where its values are among those asked for.
    """

    def __init__(self, study: Study, sample: Sample, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study, self.sample, seed = study, sample, study.base.seed
        searches, samplers = study.asked.search is not None, optuna.samplers
        self.trials = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "optuna.log"))),
            study_name=study.name,
            sampler=samplers.TPESampler(seed=seed) if searches else samplers.RandomSampler(seed),
            load_if_exists=True,
        )  # its pruner is the median's unless told otherwise
        self.each = study.asked.seeds * max(1, study.asked.folds)  # cells of a setting
        self.prunes = searches and self.each * len(study.asked.models) == 1
        self.asked: dict[str, optuna.Trial] = {}  # by the name of their first cell
        self.losses: dict[str, list[float]] = {}  # of the cells that ended, by setting

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of the trials that are there, and then those of one after the other."""
        over = {name: _distribution(values) for name, values in self.sample.over.items()}
        base = self.study.cell(BASE, {}).params.values(over)
        if not self.trials.trials and self.sample.allows(base):
            self.trials.enqueue_trial(base)
        known = [trial for trial in self.trials.trials if set(trial.params) == set(over)]
        for trial in known:
            yield from self.study.cells_of(f"trial-{trial.number:04}", trial.params)
        for _ in range(self.sample.settings - len(known)):
            asked = self.trials.ask(over)
            cells = self.study.cells_of(f"trial-{asked.number:04}", asked.params)
            self.asked[cells[0].name] = asked
            yield from cells

    def is_hopeless(self, name: str, epoch: int, loss: float) -> bool:
        """Tell whether a cell is to end after an epoch with that loss on validation."""
        if name not in self.asked:  # of a trial that was begun before the study was stopped
            return False
        self.asked[name].report(loss, epoch)
        return self.asked[name].should_prune()

    def end(self, cell: Cell, state: str, folder: Path) -> None:
        """Tell Optuna what a cell came to: a trial's value is the mean loss on validation."""
        number = int(cell.setting.removeprefix("trial-"))
        if state != "done":
            ended = TrialState.PRUNED if state == "pruned" else TrialState.FAIL
            self.trials.tell(number, state=ended, skip_if_finished=True)
            return
        models = within(read_json(RunFolder(folder).metrics), "models").values()
        told = self.losses.setdefault(cell.setting, [])
        told.append(float(np.mean([splits[chosen_on(splits)]["loss"] for splits in models])))
        if len(told) == self.each:
            self.trials.tell(number, float(np.mean(told)), skip_if_finished=True)


def _distribution(values: list | Range) -> distributions.BaseDistribution:
    if isinstance(values, list):
        return distributions.CategoricalDistribution(values)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return distributions.IntDistribution(values.low, values.high, log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)
