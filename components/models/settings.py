"""What a model is and how it is trained: frozen records of the standard library.

The rest of this package needs torch, numpy and pyarrow alone, so these records check themselves instead of leaning on
a validation library; the pipeline's configuration embeds them and adds its checks of types and unknown keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

ModelKind = Literal[
    "single",
    "shared_bottom",
    "cross_stitch",
    "mmoe",
    "cgc",
    "ple",
    "flat",
    "hmtl_behaviour",
    "hmtl_group",
    "mfh",
    "mfh_equal",
    "biasnet",
    "mtnas",
]
MODEL_KINDS: tuple[ModelKind, ...] = get_args(ModelKind)
TaskName = Literal[
    "completion",
    "click",
    "finish",
    "skip",
    "long_view",
    "like",
    "follow",
    "comment",
    "share",
    "dislike",
    "profile_enter",
]
SwitcherKind = Literal["shared_bottom", "cross_stitch", "mmoe", "cgc", "ple"]
Gate = Literal["softmax", "sigmoid"]
Merge = Literal["sum", "mean", "concat", "gate"]

# How a validation library has to treat these records: a key that they do not have is an error.
STRICT = {"extra": "forbid"}


def require(holds: bool, what: str) -> None:
    """Refuse a setting.

    Args:
        holds: Whether the setting is allowed.
        what: The rule that it breaks, naming the setting.

    Raises:
        ValueError: When it is not allowed.
    """
    if not holds:
        raise ValueError(what)


@dataclass(frozen=True)
class Task:
    """One behaviour the models predict. ``weight`` 0 means that it does not train.

    ``positive_weight`` multiplies the loss of positive labels; ``balanced`` in its place means the rule of
    :func:`components.models.losses.positive_weights`.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    name: TaskName
    weight: float = 1.0
    positive_weight: float | Literal["balanced"] = 1.0

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"weight of task {self.name} must be at least 0, found {self.weight}")
        given = self.positive_weight
        require(given == "balanced" or given > 0, f"positive_weight of task {self.name} must be above 0, found {given}")

    @property
    def loss(self) -> Literal["mse", "bce"]:
        """Squared error for ratios, binary cross-entropy on logits for everything else."""
        return "mse" if self.name == "completion" else "bce"


@dataclass(frozen=True)
class SwitcherSettings:
    """One switcher: a module with one input and one hidden output per branch.

    Attributes:
        kind: What mixes the experts. A kind of the zoo with one switcher (``mmoe``, ``cgc``, …) sets it at level 1.
        widths: Layer widths. PLE: one extraction layer each. Cross-stitch: a stitch after each. Otherwise the layers of
            every expert.
        experts: n_t, experts of each branch (CGC, PLE).
        shared: n_s, experts that all branches share (CGC, PLE); MMoE has ``branches * experts + shared`` of them, so
            that it costs what a CGC of the same settings costs.
        gate: ``softmax``, or ``sigmoid`` scaled by 1 / (number of experts that the gate mixes).
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    kind: SwitcherKind = "ple"
    widths: tuple[int, ...] = (256, 128)
    experts: int = 2
    shared: int = 2
    gate: Gate = "softmax"

    def __post_init__(self) -> None:
        require(
            len(self.widths) > 0 and min(self.widths) > 0, f"widths must be positive and not empty, found {self.widths}"
        )
        require(
            self.kind != "ple" or len(self.widths) == 2,
            f"PLE has two layers, found widths {self.widths}; name another kind, such as cgc",
        )
        require(self.experts > 0 and self.shared > 0, "a switcher needs at least one expert a branch and one shared")


@dataclass(frozen=True)
class SearchSettings:
    """The search space and the search of MTNAS (Chen, Gu, Fu, arXiv 2009.00387).

    Attributes:
        layers: Layers of sub-networks.
        blocks: Sub-networks a layer.
        epochs: Epochs of the search; the arg-max route is then trained anew like every other model.
        learning_rate: Step size of the architecture's logits.
        baseline_decay: Decay of the running mean reward that REINFORCE subtracts.
        route: The chosen routes, as ``components.models.mtnas`` writes them; empty = search for them.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    layers: int = 2
    blocks: int = 4
    epochs: int = 1
    learning_rate: float = 0.05
    baseline_decay: float = 0.95
    route: str = ""

    def __post_init__(self) -> None:
        require(self.layers > 0 and self.blocks > 0, "a search needs at least one layer of at least one block")
        require(self.epochs > 0, "a search needs at least one epoch")
        require(0 <= self.baseline_decay < 1, "baseline_decay must be at least 0 and below 1")


@dataclass(frozen=True)
class ModelRecipe:
    """One arm's model: its kind and its layer sizes (the defaults are the paper's).

    Attributes:
        kind: Which model of the zoo; ``components.models.zoo`` says what graph each one is.
        level0_width: Width of the dense layer that all trees read; 0 leaves it out.
        level1: The first switcher of every tree.
        deeper: The switchers of every level below the first.
        merge: How the leaves of several trees become one input of a tower.
        tower_widths: Hidden layers of the towers, for the most active group and wherever towers are equal.
        small_tower_widths: Hidden layers of the other groups' towers; public sources leave them open.
        search: Layers, blocks a layer and search steps of MTNAS.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    kind: ModelKind = "mfh"
    level0_width: int = 512
    level1: SwitcherSettings = SwitcherSettings("ple", (256, 128), experts=2, shared=2)
    deeper: SwitcherSettings = SwitcherSettings("cgc", (128,), experts=1, shared=1)
    merge: Merge = "sum"
    tower_widths: tuple[int, ...] = (128, 64)
    small_tower_widths: tuple[int, ...] = (64, 32)
    search: SearchSettings = SearchSettings()

    def __post_init__(self) -> None:
        require(self.level0_width >= 0, f"level0_width must be at least 0, found {self.level0_width}")
        for name in ("tower_widths", "small_tower_widths"):
            widths = getattr(self, name)
            require(all(width > 0 for width in widths), f"{name} must be positive, found {widths}")


@dataclass(frozen=True)
class TrainSettings:
    """How both arms are trained; one recipe for both, so that only the architecture differs.

    Attributes:
        window_days: Days of the training window.
        seed: Initial weights, order of the rows and dropout.
        epochs: Passes over the window, the most when early stopping is on.
        batch_size: Rows of a step, over all processes.
        learning_rate: Step size of AdamW.
        weight_decay: Decoupled decay of the network's weights.
        clip_norm: Largest norm of the network's gradient.
        id_embedding: Embedding width of id fields.
        field_embedding: Embedding width of category fields.
        embedding_widths: Widths of single fields where they differ.
        number_bins: Bins of equal normal probability into which every number falls, each with an embedding of width
            ``field_embedding`` beside the number itself; 0 for none.
        embedding_decay: L2 penalty on the embedding rows that a batch reads.
        embedding_dropout: Share of ids that a training step reads as unknown.
        embedding_dropouts: That share for single id fields where it differs.
        dropout: Share of the inputs of level 0 that a training step sets to zero.
        averaging: Decay of the running mean of the weights over steps; evaluations and the result are of the mean. 0
            takes the weights as they are; a mean costs a pass over all weights in every step.
        table_optimizer: ``dense`` AdamW moves every row at every step, ``lazy`` only the rows of the batch,
            ``rowwise`` is Adagrad with one accumulator a row.
        min_id_count: Ids seen in fewer rows of the window are unknown.
        loss_weights: ``fixed``: the tasks' own; ``uncertainty``: learned (Kendall et al., CVPR 2018).
        patience: Evaluations without improvement before training stops; 0 never stops early.
        evaluations: Evaluations an epoch when early stopping is on.
        warm_start: Start from the weights of the previous day's bundle where there is one.
        checkpoint_steps: Steps between checkpoints; 0 writes none but on SIGTERM.
        resident_mb: Largest encoded window that is kept in memory (on a GPU: its memory); larger ones are streamed.
        precision: ``bf16`` runs the network's products in bfloat16; weights, losses and moments stay float32.
        compile: Compile the network with ``torch.compile``.
        device: ``auto`` takes a GPU where there is one.
        threads: CPU threads of torch; part of the recipe, since sums round by it.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    window_days: int = 7
    seed: int = 7
    epochs: int = 2
    batch_size: int = 1_024
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    clip_norm: float = 5.0
    id_embedding: int = 16
    field_embedding: int = 4
    embedding_widths: dict[str, int] = field(default_factory=dict)
    number_bins: int = 0
    embedding_decay: float = 0.0
    embedding_dropout: float = 0.0
    embedding_dropouts: dict[str, float] = field(default_factory=dict)
    dropout: float = 0.0
    averaging: float = 0.0
    table_optimizer: Literal["dense", "lazy", "rowwise"] = "dense"
    min_id_count: int = 3
    loss_weights: Literal["fixed", "uncertainty"] = "fixed"
    patience: int = 0
    evaluations: int = 2
    warm_start: bool = False
    checkpoint_steps: int = 0
    resident_mb: int = 4_096
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        positive = ("window_days", "epochs", "batch_size", "learning_rate", "clip_norm", "id_embedding")
        counted = ("field_embedding", "min_id_count", "evaluations", "resident_mb", "threads")
        for name in (*positive, *counted):
            require(getattr(self, name) > 0, f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("weight_decay", "embedding_decay", "number_bins", "patience", "checkpoint_steps"):
            require(getattr(self, name) >= 0, f"{name} must be at least 0, found {getattr(self, name)}")
        for name in ("dropout", "averaging"):
            require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1, found {getattr(self, name)}")
        for share in (self.embedding_dropout, *self.embedding_dropouts.values()):
            require(0 <= share <= 1, f"embedding_dropout must be at least 0 and at most 1, found {share}")
        require(
            all(width > 0 for width in self.embedding_widths.values()),
            f"embedding_widths must be above 0, found {self.embedding_widths}",
        )
