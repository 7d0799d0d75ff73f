"""MLflow: a run of a tracking server, or of a local store."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from heatproof.errors import MissingExtra
from heatproof.loggers.logger import needs_extra

#: What a metric's name may not hold, and what the key of an image may not.
_NOT_IN_METRICS, _NOT_IN_IMAGES = re.compile(r"[^\w\-. :/]"), re.compile(r"[^A-Za-z0-9_\-./ ]")


class MLflowLogger:
    """Logs to a run of MLflow: metrics by step, and images as artifacts.

    Characters that MLflow allows in no name become `_` (`gradcam++` is `gradcam__`). mlflow-skinny reaches servers
    (`http://…`) and, with `MLFLOW_ALLOW_FILE_STORE=true`, folders (`file:///…`); `sqlite:///…` needs the whole mlflow.

    Args:
        run_id: a run of yours, which stays open. By default the active one; where there is none, one is made at the
            first step and ended by `close`.
        tracking_uri: of the server; by default what MLflow says.
        experiment: the name of the experiment of a run of its own; made where there is none.
        client: an `MlflowClient` of yours, in place of `tracking_uri`.

    Raises:
        MissingExtra: MLflow is not installed.

    Examples:
        >>> import os, pathlib, tempfile
        >>> from heatproof.loggers import MLflowLogger
        >>> os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        >>> logger = MLflowLogger(tracking_uri=pathlib.Path(tempfile.mkdtemp()).as_uri())
        >>> logger.scalars({"heatproof/deletion/gradcam": 0.4}, step=100)
        >>> logger.close()
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        tracking_uri: str | None = None,
        experiment: str = "heatproof",
        client: Any = None,
    ):
        needs_extra("mlflow", "MLflow", "mlflow")
        self._run_id, self._uri, self._experiment, self._client = run_id, tracking_uri, experiment, client
        self._own = False

    @property
    def client(self) -> Any:
        """The `MlflowClient`."""
        if self._client is None:
            import mlflow

            uri = self._uri or mlflow.get_tracking_uri()
            if uri.startswith("sqlite") and find_spec("sqlalchemy") is None:
                raise MissingExtra(f"{uri} needs the whole of MLflow: pip install mlflow. Or give `tracking_uri`.")
            self._client = mlflow.MlflowClient(tracking_uri=uri)
        return self._client

    @property
    def run_id(self) -> str:
        """The run: the one given, the active one, or one that is made now."""
        if self._run_id is None:
            import mlflow

            active = mlflow.active_run() if self._uri in (None, mlflow.get_tracking_uri()) else None
            self._own = active is None
            self._run_id = self._new_run() if active is None else active.info.run_id
        return self._run_id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Logs numbers by name, in one request."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        found = [Metric(_NOT_IN_METRICS.sub("_", name), value, now, step) for name, value in values.items()]
        self.client.log_batch(self.run_id, metrics=found)

    def image(self, name: str, image: np.ndarray, step: int, caption: str) -> None:
        """Logs an image, uint8 `(H, W, 3)`, as an artifact of the step; panels hold prediction and label as text."""
        self.client.log_image(self.run_id, image, key=_NOT_IN_IMAGES.sub("_", name), step=step)

    def close(self) -> None:
        """Ends a run that it began itself."""
        if self._run_id is not None and self._own:
            self.client.set_terminated(self._run_id)
            self._run_id, self._own = None, False

    def _new_run(self) -> str:
        known = self.client.get_experiment_by_name(self._experiment)
        experiment = self.client.create_experiment(self._experiment) if known is None else known.experiment_id
        return self.client.create_run(experiment).info.run_id
