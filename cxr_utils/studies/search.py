"""Settings that are drawn while a study goes on: at random, or by Optuna from what came out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna import distributions
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ..data.splits import chosen_on
from ..files import read_json, within
from ..models import fingerprint
from ..parameters import UsageError
from ..paths import RunFolder
from ..study_plan import Cell, Range, Sample, Study


class Search:
    """The trials of a study, one for each setting, kept in its folder by Optuna.

    A search draws by the tree-structured Parzen estimator (Bergstra et al. 2011) and ends a run
    whose validation loss is worse than the median of the others' at that epoch; a sample draws at
    random. The first setting is the base, where its values are among those asked for.
    """

    def __init__(self, study: Study, sample: Sample, folder: Path, decides: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study, self.sample, searches = study, sample, study.asked.search is not None
        self.each = study.asked.seeds * max(1, study.asked.folds) * len(study.asked.models)
        self.prunes = searches and self.each == 1
        self.asked: dict[str, optuna.Trial] = {}  # by the name of their first cell
        self.losses: dict[str, list[float]] = {}  # of models in cells that ended, by setting
        self.base = study.base.values(sample.over)
        self.over = {name: _distribution(values, self.base[name])
                     for name, values in sample.over.items()}  # fmt: skip
        same = [sample.model_dump(include={"over"}), searches, self.each, *study.asked.models]
        same += [study.base.model_dump(exclude={"data": {"source"}}), decides]
        log = folder / "optuna.log"
        if log.is_file() and (content := log.read_bytes())[-1:] != b"\n":  # the disk was full
            log.write_bytes(content[: content.rfind(b"\n") + 1])
        self.trials = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(log))),
            study_name=fingerprint.digest_of(same),  # trials of anything else stay apart
            load_if_exists=True,
        )  # its pruner is the median's unless told otherwise
        kind = optuna.samplers.TPESampler if searches else optuna.samplers.RandomSampler
        self.trials.sampler = kind(seed=study.base.seed + len(self.trials.trials))

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of the trials that are there, and then those of one after the other."""
        if not self.trials.trials and self.sample.allows(self.base):
            self.trials.enqueue_trial(self.base)
        known = [trial for trial in self.trials.trials if set(trial.params) == set(self.over)]
        for number in range(self.sample.settings):
            trial = known[number] if number < len(known) else self.trials.ask(self.over)
            try:
                cells = self.study.cells_of(f"trial-{trial.number:04}", trial.params)
            except UsageError:  # values that are allowed one by one, but not together
                self.trials.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                continue
            if isinstance(trial, optuna.Trial):
                self.asked[cells[0].name] = trial
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
        models = within(read_json(RunFolder(folder).metrics), "models")
        scored = [models[cell.params.sections[name].name] for name in self.study.asked.models]
        told = self.losses.setdefault(cell.setting, [])
        told += [splits[chosen_on(splits)]["loss"] for splits in scored]
        if len(told) == self.each:
            self.trials.tell(number, float(np.mean(told)), skip_if_finished=True)


def _distribution(values: list | Range, base: Any) -> distributions.BaseDistribution:
    if isinstance(values, list):
        return distributions.CategoricalDistribution(values)
    if isinstance(base, int):
        return distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return distributions.FloatDistribution(values.low, values.high, log=values.log)
