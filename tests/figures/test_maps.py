"""Each map stands in its place."""

import jax
import numpy as np

from alexnet_jax.figures.maps import GAP, SIDE, activations, maps, montage
from alexnet_jax.network.shapes import layer_sizes
from alexnet_jax.sharding.mesh import make_mesh
from alexnet_jax.trained.opened import TrainedRun, load_run


def test_montage() -> None:
    """Three large maps in two columns."""
    drawn = np.arange(SIDE * SIDE * 3, dtype=np.float64).reshape(SIDE, SIDE, 3)
    found = montage(drawn, 2)
    assert found.shape == (2 * SIDE + GAP, 2 * SIDE + GAP)
    np.testing.assert_array_equal(found[:SIDE, :SIDE], drawn[..., 0])
    np.testing.assert_array_equal(found[:SIDE, SIDE + GAP :], drawn[..., 1])
    np.testing.assert_array_equal(found[SIDE + GAP :, :SIDE], drawn[..., 2])
    assert np.isnan(found[SIDE + GAP :, SIDE:]).all() and np.isnan(found[:, SIDE]).all()
    small = montage(np.array([[[3.0, 4.0]]]), 2)
    assert np.unique(small[:, :SIDE]).tolist() == [3] and np.unique(small[:, SIDE + GAP :]).tolist() == [4]


def test_the_figure(opened: TrainedRun) -> None:
    """All maps of all layers of both towers, as the network makes them, and what is said of them."""
    (picture,), _ = opened.packed.read("validation", np.array([2]))
    found = activations(opened, picture)
    sizes = layer_sizes(opened.config.network)
    figure = maps(opened, 2)
    above, *drawn = figure.axes
    np.testing.assert_array_equal(above.images[0].get_array(), picture)
    layers = list(opened.config.network.layers())
    assert len(drawn) == 2 * len(layers)
    for i, name in enumerate(layers):
        for t, axes in enumerate(drawn[2 * i : 2 * i + 2]):
            tiles = np.ma.getdata(axes.images[0].get_array())
            tower = found[name][t]
            np.testing.assert_array_equal(np.unique(tiles[~np.isnan(tiles)]), np.unique(tower))
            assert axes.images[0].get_clim() == (0, np.abs(found[name]).max())
            assert axes.get_title(loc="left").startswith(f"{name}, tower {t}: {tower.shape[-1]} ")
            assert tower.shape[:-1] == ((sizes[name],) * 2 if name in sizes else ())


def test_on_another_mesh(opened: TrainedRun) -> None:
    """Rows of devices that have nothing to do get the same picture."""
    (picture,), _ = opened.packed.read("validation", np.array([0]))
    wide = activations(load_run(opened.workdir, mesh=make_mesh(4, 2)), picture)
    for name, found in activations(opened, picture).items():
        np.testing.assert_allclose(wide[name], found, rtol=1e-4, atol=1e-5)
    assert jax.device_count() == 8
