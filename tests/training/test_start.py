"""A run that begins with what another has learnt."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError, RefusedError
from alexnet_jax.learning.metrics import Totals
from alexnet_jax.learning.state import State, init_state
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.checkpoint import Checkpoints, Retention
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training import opening
from alexnet_jax.training.ancestor import check_ancestor
from alexnet_jax.training.opening import restore_or_start
from configs import quickstart
from tests.commands.programs import share_programs
from tests.commands.running import narrow


def six_convs(data_dir: Path, seed: int, classes: int, init_from: str = "") -> Config:
    """Six convolutions and batch normalisation: all that can be handed on."""
    config = narrow(quickstart.get_config("six_convs,batch_norm"), data_dir, 5, network={"classes": classes})
    return dataclasses.replace(config, seed=seed, init_from=init_from)


@pytest.fixture(scope="module")
def ancestor(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A run of 21 classes that has got somewhere: every number is its own."""
    path, config, mesh = tmp_path_factory.mktemp("ancestor"), six_convs(data_dir, 1, 21), make_mesh(1, 2)
    state = jax.tree.map(lambda x: x + np.ones((), x.dtype), init_state(config, mesh))
    workdir = Workdir(str(path))
    workdir.write_config(config)
    checkpoints = Checkpoints(workdir.checkpoints, Retention(1))
    checkpoints.save(1, (state, Totals.zero()), {"errors": [(1, 0.5)], "seconds": 1.0})
    checkpoints.close()
    return path, jax.device_get(state)


@pytest.mark.slow
def test_the_trunk_arrives_bit_for_bit(
    ancestor: tuple[Path, State], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 21 classes on 1x2 to 10 on 2x1: all layers but the classifier, which is drawn anew."""
    share_programs(monkeypatch)
    path, learnt = ancestor
    config, mesh = six_convs(data_dir, 0, 10, str(path)), make_mesh(2, 1)
    check_ancestor(config)
    checkpoints = Checkpoints(tmp_path, Retention(1))
    run = restore_or_start(checkpoints, config, mesh)
    checkpoints.close()
    state, fresh = run.state, jax.device_get(opening.init_state(config, mesh))
    assert (int(state.step), float(run.totals.images), run.errors) == (0, 0, [])
    assert set(state.params) == set(learnt.params)
    trunk = set(learnt.params) - {"fc8"}
    assert "conv6" in trunk
    for layer in trunk:
        jax.tree.map(np.testing.assert_array_equal, state.params[layer], learnt.params[layer])
    jax.tree.map(np.testing.assert_array_equal, state.params["fc8"], fresh.params["fc8"])
    jax.tree.map(np.testing.assert_array_equal, state.averages, learnt.averages)
    jax.tree.map(np.testing.assert_array_equal, state.velocity, fresh.velocity)


@pytest.mark.slow
def test_an_ancestor_that_does_not_fit(ancestor: tuple[Path, State], data_dir: Path, tmp_path: Path) -> None:
    path, _ = ancestor
    values = dataclasses.asdict(six_convs(data_dir, 0, 10, str(path)))
    for section, field, value, words in (
        ("conv2", "width", 32, "network.conv2.width=16, this config says 32"),
        ("conv2", "then", ("activation",), r"network.conv2.then=\('activation', .*, this config says"),
    ):
        other = values | {
            "network": values["network"] | {section: values["network"][section] | {field: value}}
        }
        with pytest.raises(ConfigError, match=f"is a run with {words}"):
            check_ancestor(build(other))
    free = {"dropout": 0.1, "fc6": {"bias": 0.0}, "map_norm": {"alpha": 1.0}, "batch_norm": {"decay": 0.5}}
    network = values["network"]
    changed = {name: network[name] | new if isinstance(new, dict) else new for name, new in free.items()}
    check_ancestor(build(values | {"network": network | changed}))  # nothing that the trunk computes
    with pytest.raises(RefusedError, match="holds no run"):
        check_ancestor(build(values | {"init_from": str(tmp_path)}))
    Workdir(str(tmp_path)).write_config(build(values))
    with pytest.raises(RefusedError, match="has no checkpoint yet"):
        check_ancestor(build(values | {"init_from": str(tmp_path)}))


def test_a_run_keeps_its_ancestor(data_dir: Path, tmp_path: Path) -> None:
    workdir = Workdir(str(tmp_path))
    workdir.write_config(six_convs(data_dir, 0, 10, "runs/one"))
    (workdir.checkpoints / "5").mkdir(parents=True)
    with pytest.raises(RefusedError, match="holds a run with init_from=runs/one, this config says runs/two"):
        workdir.check_same(six_convs(data_dir, 0, 10, "runs/two"))
