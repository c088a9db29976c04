"""Early stopping on a rule over all tasks.

The score of an evaluation is the weighted mean over tasks of ``validation loss / loss of the best constant
prediction`` on the same rows: a cross-entropy of a rare behaviour and a squared error become comparable, 1 means that a
task has learned nothing, and no single task decides. The weights are the tasks' own. All rows of a task count alike, so
groups count by their rows: a small group's loss of one day is mostly noise; its curve stands in the history. Tasks of
weight 0 and tasks whose validation labels do not vary have no say.

Training ends after ``patience`` evaluations in a row whose score is not below the lowest so far, and goes back to the
weights of the lowest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from components.errors import TrainingError
from components.models.curves import EpochLoss
from components.models.settings import Task


@dataclass
class EarlyStopping:
    """The rule's state.

    Attributes:
        patience: Evaluations without improvement after which training ends.
        weights: Weight of each task that has a say, by its name.
        constants: Loss of the best constant prediction of those tasks.
        scores: The score of every evaluation so far, with its step.
        best_step: Step of the lowest score; 0 before the first evaluation.
        waited: Evaluations since the lowest score.
    """

    patience: int
    weights: dict[str, float]
    constants: dict[str, float]
    scores: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    waited: int = 0

    @classmethod
    def over(cls, patience: int, tasks: Sequence[Task], constant_losses: Sequence[float | None]) -> "EarlyStopping":
        """The rule for a set of validation rows.

        Args:
            patience: Evaluations without improvement.
            tasks: m tasks.
            constant_losses: Loss of the best constant prediction on the validation rows, None where it can not be told.

        Returns:
            The rule before the first evaluation.

        Raises:
            TrainingError: When no task has a say.
        """
        pairs = list(zip(tasks, constant_losses, strict=True))
        constants: dict[str, float] = {task.name: loss for task, loss in pairs if loss is not None and task.weight > 0}
        if not constants:
            raise TrainingError(
                "early stopping needs a task of weight above 0 whose validation labels vary, and there is none; give "
                "other validation rows, or set train.patience to 0"
            )
        weights: dict[str, float] = {task.name: task.weight for task in tasks if task.name in constants}
        return cls(patience, weights, constants)

    def observe(self, step: int, found: Sequence[EpochLoss]) -> bool:
        """Take an evaluation into account.

        Args:
            step: Steps so far.
            found: The evaluation's records.

        Returns:
            Whether its score is the lowest so far.
        """
        losses = {one.task: one.valid_loss for one in found if one.group is None and one.valid_loss is not None}
        parts = [self.weights[name] * losses[name] / constant for name, constant in self.constants.items()]
        score = sum(parts) / sum(self.weights.values())
        improved = not self.scores or score < min(value for _, value in self.scores)
        self.scores.append((step, score))
        self.waited = 0 if improved else self.waited + 1
        if improved:
            self.best_step = step
        return improved

    @property
    def ended(self) -> bool:
        """Whether training is over."""
        return self.waited >= self.patience
