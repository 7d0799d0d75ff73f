"""Maps and their scores while a network is trained, in TensorBoard, Weights & Biases, MLflow or a logger of yours.

    MapMonitor             a plain training loop: `monitor.step(network, step)`
    LightningMapMonitor    a callback of Lightning
    TrainerMapMonitor      a callback of the Trainer of Hugging Face

    TensorBoardLogger, WandbLogger, MLflowLogger, and the interface `Logger`

Names load on first use: importing this imports neither torch nor Lightning, transformers, wandb or MLflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heatproof.loggers.lightning_callback import LightningMapMonitor
    from heatproof.loggers.logger import Logger
    from heatproof.loggers.map_monitor import MapMonitor
    from heatproof.loggers.mlflow_logger import MLflowLogger
    from heatproof.loggers.tensorboard_logger import TensorBoardLogger
    from heatproof.loggers.trainer_callback import TrainerMapMonitor
    from heatproof.loggers.wandb_logger import WandbLogger

_HOMES = {
    "LightningMapMonitor": "lightning_callback",
    "Logger": "logger",
    "MLflowLogger": "mlflow_logger",
    "MapMonitor": "map_monitor",
    "TensorBoardLogger": "tensorboard_logger",
    "TrainerMapMonitor": "trainer_callback",
    "WandbLogger": "wandb_logger",
}

__all__ = [
    "LightningMapMonitor",
    "Logger",
    "MLflowLogger",
    "MapMonitor",
    "TensorBoardLogger",
    "TrainerMapMonitor",
    "WandbLogger",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"heatproof.loggers.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'heatproof.loggers' has no attribute {name!r}. It has: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
