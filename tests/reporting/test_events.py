"""The TensorBoard events of a real run, as TensorBoard reads them."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from alexnet_jax.config.fields import Config
from alexnet_jax.data.batches import open_packed
from alexnet_jax.reporting.events import Events
from alexnet_jax.reporting.summaries import kernel_picture
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.checkpoint import Checkpoints
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.loop import train
from alexnet_jax.training.opening import restore
from configs import quickstart
from tests.commands.running import lines, narrow

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
HPARAMS = "_hparams_/session_start_info"


def settings(data_dir: Path, steps: int) -> Config:
    """A line every 2 steps, a validation every 4."""
    more = {"train": {"log_every": 2}, "evaluation": {"every_epochs": 0.016, "batch_size": 500}}
    return narrow(quickstart.get_config(), data_dir, steps, **more)


@pytest.fixture(scope="module")
def told(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The events of a run that was resumed at step 8 and ended at 10."""
    path = tmp_path_factory.mktemp("told")
    for steps in (8, 10):
        config = settings(data_dir, steps)
        train(config, Workdir(str(path)), open_packed(config.data, 10), make_mesh(1, 2), quiet=True)
    return path


@pytest.fixture(scope="module")
def events(told: Path) -> dict[str, dict[int, np.ndarray]]:
    """By tag and step."""
    found = defaultdict(dict)
    for file in sorted(told.glob("events*"), key=lambda file: file.name):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                plugin = value.metadata.plugin_data
                own = plugin.content if value.tag == HPARAMS else tf.make_ndarray(value.tensor)
                assert event.step not in found[value.tag] or event.step == 8  # where it was resumed
                found[value.tag][event.step] = own
    return found


@pytest.mark.slow
def test_scalars(events: dict[str, dict[int, np.ndarray]], told: Path) -> None:
    """The figures of the log, and beside them what depends on clock and machine."""
    for line in lines(told, but=()):
        step, split = line.pop("step"), line.pop("split")
        for name, value in line.items():
            assert events[f"{split}/{name}"][step] == pytest.approx(value), (split, name)
    assert all(0 <= share <= 1 for share in events["train/waiting"].values())
    assert list(events["train/epoch"].values()) == pytest.approx([step / 250 for step in (2, 4, 6, 8, 10)])
    assert all(1e8 < size < 1e11 for size in events["train/memory"].values())
    assert "waiting" not in (told / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_weights(events: dict[str, dict[int, np.ndarray]], told: Path, data_dir: Path) -> None:
    """Every layer and tower at each validation; at the end those that were saved."""
    config, mesh = settings(data_dir, 10), make_mesh(1, 1)
    checkpoints = Checkpoints(Workdir(str(told)).checkpoints)
    params = jax.device_get(restore(checkpoints, None, config, mesh).params)
    checkpoints.close()
    for layer in LAYERS:
        for kind in ("kernel", "bias"):
            for tower in (0, 1):
                found = events[f"{layer}/{kind} tower {tower}"]
                assert list(found) == [4, 8, 10]
                values, buckets = params[layer][kind][tower], found[10]
                counts, _ = np.histogram(values, np.append(buckets[:, 0], buckets[-1, 1]))
                np.testing.assert_array_equal(buckets[:, 2], counts)
                assert counts.sum() == values.size


@pytest.mark.slow
def test_kernels(events: dict[str, dict[int, np.ndarray]], told: Path, data_dir: Path) -> None:
    """At the start of a run and of what goes on with it, and at each validation."""
    pictures = events["conv1/kernels"]
    assert list(pictures) == [0, 4, 8, 10]
    config, mesh = settings(data_dir, 10), make_mesh(1, 1)
    checkpoints = Checkpoints(Workdir(str(told)).checkpoints)
    kernel = restore(checkpoints, None, config, mesh).params["conv1"]["kernel"]
    checkpoints.close()
    width, height, png = pictures[10][0], pictures[10][1], pictures[10][2]
    decoded = tf.io.decode_png(png).numpy()
    assert (int(height), int(width)) == decoded.shape[:2]
    np.testing.assert_array_equal(decoded, kernel_picture(kernel))


@pytest.mark.slow
def test_hyperparameters(events: dict[str, dict[int, np.ndarray]]) -> None:
    """Once, with all that is in the config."""
    [content] = events[HPARAMS].values()
    found = HParamsPluginData.FromString(content).session_start_info.hparams
    assert found["optimizer.momentum"].number_value == pytest.approx(0.9)
    assert found["data.name"].string_value == "toyshapes"
    assert found["schedule.drops"].string_value == "(13.0, 16.0)"
    assert found["train.steps"].number_value == 8


class Failing:
    """A writer whose every call ends in an error."""

    def __init__(self, error: Exception):
        self.error = error

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_: object) -> None:
            raise self.error

        return call


@pytest.mark.parametrize("opens", [True, False])
def test_writers_that_fail(
    opens: bool, narrow: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every call, or as they are opened: each is complained of once, and nothing ends."""
    said, full, away = [], OSError(28, "full"), RuntimeError("away")
    for name, error in (("metric_writers.SummaryWriter", full), ("WandbWriter", away)):
        made = Failing(error)
        made_by = (lambda *_, made=made: made) if opens else made.open
        monkeypatch.setattr(f"alexnet_jax.reporting.events.{name}", made_by)
    writers = Events(Workdir(str(tmp_path)), dataclasses.replace(narrow, wandb="toys"), said.append)
    writers.config(narrow)
    for step in range(2):
        writers.scalars(step, {"train/loss": 1.0})
        writers.weights(step, {"conv1": {"kernel": jax.numpy.ones((1, 3, 3, 3, 2))}})
    writers.close()
    wanted = ["not written for TensorBoard: [Errno 28] full", "not written for Weights & Biases: away"]
    assert said == wanted


def test_nothing_where_another_process_writes(narrow: Config, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path), process=1)
    events = Events(workdir, dataclasses.replace(narrow, wandb="toys"), print)
    events.config(narrow)
    events.weights(0, {"conv1": {"kernel": jax.numpy.ones((1, 3, 3, 3, 2))}})
    events.close()
    assert list(tmp_path.iterdir()) == []
