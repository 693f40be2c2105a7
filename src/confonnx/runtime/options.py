"""How onnxruntime shall run a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from confonnx.errors import ConfigurationError


class ExecutionMode(StrEnum):
    """Whether independent branches of a graph run one after the other or beside each other."""

    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"


class GraphOptimization(StrEnum):
    """How far onnxruntime rewrites a graph; its own levels."""

    DISABLED = "disabled"
    BASIC = "basic"
    EXTENDED = "extended"
    LAYOUT = "layout"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Options of one session. The defaults suit a server that shares its cores with other requests."""

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """Execution providers in order of preference; nothing but these is ever enabled."""
    intra_op_threads: int = 1
    """Threads of one operator, the calling thread included."""
    inter_op_threads: int = 1
    """Threads for branches of the graph; used by ``ExecutionMode.PARALLEL`` only."""
    execution_mode: ExecutionMode = ExecutionMode.SEQUENTIAL
    graph_optimization: GraphOptimization = GraphOptimization.ALL
    mem_arena: bool = True
    """Keep freed memory for the next run."""
    mem_arena_shrinkage: bool = False
    """Give the arena's unused memory back after each run: slower, but one large request does not hold its
    memory.
    """
    spinning: bool = False
    """Let idle threads burn a core while they wait: a little faster alone, much slower on shared cores."""
    operator_libraries: tuple[Path, ...] = ()
    """Shared libraries with custom operators: arbitrary native code inside the TEE, so never without being
    named. They count in the model's digest."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError."""
        if not self.providers:
            raise ConfigurationError("no execution provider given; name at least CPUExecutionProvider")
        if "AzureExecutionProvider" in self.providers:
            raise ConfigurationError(
                "AzureExecutionProvider sends tensors to a remote service; it can never be used here"
            )
        for name in ("intra_op_threads", "inter_op_threads"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; expected at least 1")
