"""Steps as the profiler saw them: the layers are in the trace by their names."""

import dataclasses
from pathlib import Path

import jax
import pytest

from alexnet_jax.data.batches import open_packed
from alexnet_jax.reporting.profile import Profile
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.storage.workdir import Workdir
from alexnet_jax.training.loop import train
from configs import quickstart
from tests.commands.running import lines, narrow


@pytest.mark.slow
# As jaxlib defines the type of statistics, nanobind warns; were that an error, it would end the interpreter.
@pytest.mark.filterwarnings("ignore:builtin type event_stats has no __module__:DeprecationWarning")
@pytest.mark.parametrize(
    ("asked", "profiled"), [(3, [2, 3, 4]), (99, [2, 3, 4, 5, 6])], ids=["a few", "to the end"]
)
def test_a_run_is_profiled(
    asked: int, profiled: list[int], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps after the one that is compiled; every layer's name is in the program that they ran."""
    config = narrow(quickstart.get_config(), data_dir, 6, train={"log_every": 3})
    config = dataclasses.replace(config, profile_steps=asked)
    train(config, Workdir(str(tmp_path)), open_packed(config.data, 10), make_mesh(1, 2))
    assert f"profile in {tmp_path}/plugins/profile; TensorBoard shows it" in capsys.readouterr().out
    [trace] = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    content = trace.read_bytes()
    for layer in config.network.layers():
        assert f"shard_map/{layer}/".encode() in content, layer
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    found = [event for plane in planes for line in plane.lines for event in line.events]
    assert sorted(dict(event.stats)["step_num"] for event in found if event.name == "train") == profiled
    ran = {str(dict(event.stats).get("hlo_module")) for event in found}
    assert "jit_step" in ran
    assert [line["step"] for line in lines(tmp_path)] == [3, 6, 6, 6]


def test_without_room_or_right(tmp_path: Path) -> None:
    """Complaints of the profiler are said, and the run goes on; other processes do not profile."""
    said = []
    (tmp_path / "plugins").write_text("")  # a file where a folder must be
    profile = Profile(Workdir(str(tmp_path)), 0, 1, said.append)
    for number in range(1, 5):
        with profile.step(number, None):
            pass
    profile.close()
    assert len(said) == 1 and said[0].startswith("not profiled: "), said
    other = Profile(Workdir(str(tmp_path / "other"), process=1), 0, 1, said.append)
    for number in range(1, 5):
        with other.step(number, None):
            pass
    other.close()
    assert len(said) == 1 and not (tmp_path / "other").exists()
