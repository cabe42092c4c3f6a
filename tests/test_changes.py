"""What each variant changes, field by field; tests/learning/test_schedule.py has the schedules by hand."""

import dataclasses
from typing import Any

import pytest

from alexnet_jax.build import build
from alexnet_jax.run.workdir import differences
from configs import cifar10, fashion_mnist, four_layers, imagenet, quickstart, variants

CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")
BATCH_NORM = {
    **{f"network.{name}.bias": 0.01 for name in CONVS},
    **{f"network.{name}.bias": 0.1 for name in ("fc6", "fc7")},
    **{f"network.{name}.deviation": 0.005 for name in ("fc6", "fc7")},
    "network.lrn.after_activation": (),
    "network.batch_norm.after": CONVS,
}
# On the paper's config; `source` is Deviations in README.md.
CHANGES = {
    "paper": {},
    "source": {
        "network.conv3.deviation": 0.03,
        "network.conv4.deviation": 0.03,
        "network.conv5.deviation": 0.03,
        "network.conv6.deviation": 0.03,
        "network.lrn.alpha_times": "mean",
        "network.lrn.before_activation": ("conv1",),
        "network.lrn.after_activation": ("conv2",),
        "network.map_norm.after": ("conv2",),
        "augment.shared_by": 32,
        "augment.last_offset": True,
        "augment.mean": "centre",
        "augment.colour_divides": True,
        "augment.colour_until": 67.0,
        "schedule.kind": "drops",
        "schedule.drops": (25.0, 51.0, 79.0),
        "schedule.biases.ratio": 2.0,
        "schedule.biases.kind": "drops",
        "schedule.layers": (("conv1", 67.0, 1e-5), ("conv1", 72.0, 0.0)),
        "train.epochs": 91.0,
        "train.order": "fixed",
    },
    "half": {"network.towers": 1}
    | {
        f"network.{name}.width": width
        for name, width in {"conv1": 48, "conv2": 128, "conv3": 192, "conv4": 192}.items()
    },
    "one_tower": {"network.towers": 1},
    "four_towers": {"network.towers": 4},
    "no_lrn": {"network.lrn.after_activation": ()},
    "lrn1_only": {"network.lrn.after_activation": ("conv1",)},
    "lrn2_before_relu": {
        "network.lrn.before_activation": ("conv2",),
        "network.lrn.after_activation": ("conv1",),
    },
    "non_overlapping_pool": {
        "network.pool.window": 2,
        "network.conv2.padding": 1,
        "network.conv5.padding": 0,
    },
    "no_conv3_crossing": {"network.crossings": ("fc6", "fc7", "fc8")},
    "no_communication": {
        "network.crossings": ("fc8",),
        "network.conv2.width": 320,
        "network.fc6.width": 8192,
        "network.fc7.width": 8192,
    },
    "tanh": {"network.activation": "tanh"},
    "sigmoid": {"network.activation": "sigmoid"},
    "no_conv2": {
        "network.conv2.width": 0,
        "network.lrn.after_activation": ("conv1",),
        "network.pool.after": ("conv1", "conv3", "conv5"),
    },
    "no_conv3": {"network.conv3.width": 0, "network.crossings": ("conv4", "fc6", "fc7", "fc8")},
    "no_conv4": {"network.conv4.width": 0},
    "no_conv5": {"network.conv5.width": 0, "network.pool.after": ("conv1", "conv2", "conv4")},
    "no_fc6": {"network.fc6.width": 0, "network.crossings": ("conv3", "fc7", "fc8")},
    "no_fc7": {"network.fc7.width": 0, "network.crossings": ("conv3", "fc6", "fc8")},
    "no_dropout": {"network.dropout": 0.0},
    "no_colour_noise": {"augment.colour_noise": 0.0},
    "no_weight_decay": {"optimizer.weight_decay": 0.0},
    "batch_norm": BATCH_NORM,
    "six_convs": {
        "network.conv6.width": 256,
        "network.crossings": ("conv6", "conv3", "fc6", "fc7", "fc8"),
    },
    "pretrain": {
        "schedule.kind": "drops",
        "schedule.drops": (6.0,),
        "schedule.layers": tuple((name, 0.0, 0.001) for name in CONVS),
        "train.epochs": 8.11,
    },
    "fine_tune": {
        "schedule.kind": "drops",
        "init_from": "elsewhere",
        "schedule.learning_rate": 0.001,
        "schedule.drops": (22.0, 42.0),
        "schedule.layers": (("conv1", 0.0, 1e-4), ("conv1", 7.0, 0.0)),
        "augment.colour_until": 38.0,
        "train.epochs": 54.0,
    },
    "dexp": {
        "schedule.kind": "dexp",
        "schedule.factor": 250.0,
        "schedule.biases.ratio": 2.0,
        "schedule.biases.kind": "dexp",
    },
}
# On the authors' config, where that is not the same.
ON_SOURCE = {
    "no_lrn": CHANGES["no_lrn"] | {"network.lrn.before_activation": (), "network.map_norm.after": ()},
    "lrn1_only": {"network.lrn.after_activation": (), "network.map_norm.after": ()},
    "lrn2_before_relu": {
        "network.lrn.before_activation": ("conv1", "conv2"),
        "network.lrn.after_activation": (),
    },
    "no_conv2": CHANGES["no_conv2"] | {"network.lrn.after_activation": (), "network.map_norm.after": ()},
    "batch_norm": BATCH_NORM | {"network.lrn.before_activation": (), "network.map_norm.after": ()},
}


def changes(base: str, names: str, recipe: Any = imagenet) -> dict[str, Any]:
    before, after = (recipe.get_config(text) for text in (base, names))
    if after.init_from:  # which must be named by who uses it
        after.init_from = "elsewhere"
    configs = (dataclasses.asdict(build(config.to_dict())) for config in (before, after))
    return {name: now for name, _, now in differences(*configs) if not name.startswith("expected.")}


def test_every_variant_is_here() -> None:
    assert set(CHANGES) == {name for name in variants.VARIANTS if not name.startswith("hand_")}


@pytest.mark.parametrize("name", CHANGES)
def test_changes(name: str) -> None:
    assert changes("paper", name) == CHANGES[name]


def expected(recipe: Any, names: str) -> tuple[float, int]:
    values = recipe.get_config(names).expected
    return values.top1_error, values.views


# README.md, Results, but for the figure on the 2010 test split.
EXPECTED = {
    "paper": (0.407, 10),
    "source": (0.40664, 10),
    "no_lrn": (0.42034, 10),
    "lrn1_only": (0.40488, 10),
    "lrn2_before_relu": (0.41096, 10),
    "non_overlapping_pool": (0.41058, 10),
    "no_communication": (0.41828, 10),
    "batch_norm": (0.398, 1),
    "fine_tune": (0.3899, 10),
    "dexp": (0.40528, 10),
}


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_what_a_variant_is_expected_to_come_to(name: str) -> None:
    """By itself on ImageNet; nothing is known of it together with another."""
    assert expected(imagenet, name) == EXPECTED.get(name, (0.0, 0))
    assert expected(imagenet, f"source,{name}") == (0.0, 0)


def test_what_other_data_are_expected_to_give() -> None:
    """Only for the config as it stands in its file; ImageNet's figures say nothing of them."""
    assert expected(quickstart, "paper") == (0.032, 1)
    assert expected(four_layers, "paper") == (0.13, 9)
    assert expected(four_layers, "eleven") == (0.11, 9)
    for recipe, name in ((quickstart, "no_lrn"), (four_layers, "relu"), (four_layers, "eleven,no_dropout")):
        assert expected(recipe, name) == (0.0, 0)
    assert expected(cifar10, "paper") == expected(fashion_mnist, "paper") == (0.0, 0)


@pytest.mark.parametrize("name", ON_SOURCE)
def test_changes_of_the_authors_net(name: str) -> None:
    assert changes("source", f"source,{name}") == ON_SOURCE[name]


def test_changes_of_the_four_layer_nets() -> None:
    """Their decay is by layer; there is no LRN to move, and dexp ends the drops."""
    assert changes("paper", "no_weight_decay", four_layers) == {"optimizer.layer_decay": ()}
    assert changes("paper", "lrn2_before_relu", four_layers) == {}
    assert changes("paper", "dexp", four_layers)["schedule.drops"] == ()


@pytest.mark.parametrize(
    ("names", "pools", "crossings"),
    [
        ("no_conv2,no_conv3", ("conv1", "conv4", "conv5"), ("conv4", "fc6", "fc7", "fc8")),
        ("no_conv3,no_conv2", ("conv1", "conv4", "conv5"), ("conv4", "fc6", "fc7", "fc8")),
        ("no_conv4,no_conv3", ("conv1", "conv2", "conv5"), ("conv5", "fc6", "fc7", "fc8")),
        ("no_conv5,no_conv4", ("conv1", "conv2", "conv3"), ("conv3", "fc6", "fc7", "fc8")),
        ("no_fc7,no_fc6", ("conv1", "conv2", "conv5"), ("conv3", "fc8")),
        ("pretrain,no_conv2", ("conv1", "conv3", "conv5"), ("conv3", "fc6", "fc7", "fc8")),
        ("no_conv5,six_convs", ("conv1", "conv2", "conv4"), ("conv6", "conv3", "fc6", "fc7", "fc8")),
    ],
)
def test_layers_are_left_out_in_any_order(
    names: str, pools: tuple[str, ...], crossings: tuple[str, ...]
) -> None:
    network = build(imagenet.get_config(names).to_dict()).network
    assert (network.pool.after, network.crossings) == (pools, crossings)
