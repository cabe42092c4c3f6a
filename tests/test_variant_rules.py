"""Variants as changes of a config: each does something, alone or together with others, in any order."""

from configs import four_layers, imagenet, variants
from tests.network.test_variants import config

# Layers that are left out, and what then has the pools and reads all towers.
LEFT_OUT = {
    "no_conv2,no_conv3": ("conv1 conv4 conv5", "conv4 fc6 fc7 fc8"),
    "no_conv3,no_conv2": ("conv1 conv4 conv5", "conv4 fc6 fc7 fc8"),
    "no_conv4,no_conv3": ("conv1 conv2 conv5", "conv5 fc6 fc7 fc8"),
    "no_conv5,no_conv4": ("conv1 conv2 conv3", "conv3 fc6 fc7 fc8"),
    "no_fc7,no_fc6": ("conv1 conv2 conv5", "conv3 fc8"),
    "pretrain,no_conv2": ("conv1 conv3 conv5", "conv3 fc6 fc7 fc8"),
    "no_conv5,six_convs": ("conv1 conv2 conv4", "conv6 conv3 fc6 fc7 fc8"),
}


def test_each_changes_something() -> None:
    """But for the paper, which is what a config says if nothing is said."""
    before = config("paper")
    assert [name for name in variants.VARIANTS if config(name) == before] == ["paper"]


def test_layers_are_left_out_in_any_order() -> None:
    for names, wanted in LEFT_OUT.items():
        network = config(names).network
        pools = " ".join(name for name, conv in network.convs().items() if conv.pool)
        assert (pools, " ".join(network.crossings)) == wanted, names


def test_what_is_known_of_a_result() -> None:
    """The authors' figure is expected of one change to the paper's config, on ImageNet, and of no other."""
    for name, variant in variants.VARIANTS.items():
        assert imagenet.get_config(name).expected.to_dict() == variant.expected, name
        for other in (imagenet.get_config(f"source,{name}"), four_layers.get_config(name)):
            known = other.expected.to_dict() != variants.UNKNOWN
            assert known == (name == "paper" and other.data.name != "imagenet2012"), name


def test_no_decay_of_any_layer() -> None:
    """The four-layer nets have decays by layer."""
    assert config("no_weight_decay", four_layers).optimizer.layer_decay == ()
