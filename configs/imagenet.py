"""AlexNet on ImageNet (ILSVRC-2012), as the paper describes it.

    python -m alexnet_jax.main --config=configs/imagenet.py --workdir=runs/imagenet

Expected: the paper's single network has 40.7 % top-1 and 18.2 % top-5 error on the 2012 validation split with
ten views (Table 2). Not run yet with this program.

Variants are chosen after a colon, as in `configs/imagenet.py:source`, the authors' own configuration;
`python -m configs.variants` lists them, with what they have to reach.
"""

from typing import TYPE_CHECKING, Any

from configs import variants

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# What the text leaves open follows the authors' source, and says so.
PAPER: dict[str, Any] = {
    "seed": 0,
    "init_from": "",
    "network": {
        "towers": 2,  # section 3.2: two GPUs
        "image_size": 224,  # section 4.1
        "classes": 1000,
        # Section 3.5; section 5: N(0, 0.01) everywhere, ones in conv2, conv4, conv5 and the hidden layers.
        "conv1": {"width": 96, "size": 11, "stride": 4, "padding": 0, "deviation": 0.01, "bias": 0.0},
        "conv2": {"width": 256, "size": 5, "stride": 1, "padding": 2, "deviation": 0.01, "bias": 1.0},
        "conv3": {"width": 384, "size": 3, "stride": 1, "padding": 1, "deviation": 0.01, "bias": 0.0},
        "conv4": {"width": 384, "size": 3, "stride": 1, "padding": 1, "deviation": 0.01, "bias": 1.0},
        "conv5": {"width": 256, "size": 3, "stride": 1, "padding": 1, "deviation": 0.01, "bias": 1.0},
        "conv6": {"width": 0, "size": 3, "stride": 1, "padding": 1, "deviation": 0.01, "bias": 1.0},
        "fc6": {"width": 4096, "deviation": 0.01, "bias": 1.0},
        "fc7": {"width": 4096, "deviation": 0.01, "bias": 1.0},
        "fc8": {"deviation": 0.01, "bias": 0.0},
        "crossings": ("conv3", "fc6", "fc7", "fc8"),
        "unshared": (),
        "activation": "relu",  # section 3.1
        "lrn": {  # section 3.3
            "size": 5,
            "k": 2.0,
            "alpha": 1e-4,
            "alpha_times": "sum",
            "beta": 0.75,
            "before_activation": (),
            "after_activation": ("conv1", "conv2"),
            "after_pool": (),
        },
        "map_norm": {"size": 5, "k": 1.0, "alpha": 1e-3, "beta": 0.75, "after": ()},  # the source only
        "pool": {"window": 3, "stride": 2, "after": ("conv1", "conv2", "conv5")},  # section 3.4
        "batch_norm": {"epsilon": 1e-4, "decay": 0.9, "after": ()},  # not in 2012
        "dropout": 0.5,  # section 4.2
        "compute_dtype": "float32",
    },
    "mesh": {"data": 0, "tower": 0, "cpu_devices": 0},
    "data": {
        "name": "imagenet2012",
        "size": 256,
        "encoding": "raw",
        "dir": "",
        "read_ahead": 4,
        "threads": 0,
        "keep_mib": 512,
        "trace": False,
    },
    "augment": {
        # Section 4.1: a crop and a flip for each picture, 2048 = 32 * 32 * 2 ways.
        "flip": True,
        "shared_by": 1,
        "last_offset": False,
        "mean": "under_crop",
        "colour_noise": 0.1,
        # The text says eigenvalue, which fits the 0-1 scale only; the source takes its root.
        "colour_unit": "root_eigenvalue",
        "colour_divides": False,
        "colour_until": 0.0,
    },
    "optimizer": {
        "momentum": 0.9,  # section 5
        "weight_decay": 0.0005,
        "decay_biases": False,  # the text decays "w"; the source leaves biases out
        "layer_decay": (),
    },
    "schedule": {
        "kind": "plateau",  # section 5: by hand, when the validation error stopped improving
        "learning_rate": 0.01,
        "warmup_epochs": 0.0,
        "factor": 10.0,
        "drops": (),
        "patience": 3,  # the text gives no number
        "max_drops": 3,
        "levels": 4,
        "power": 1.0,
        # "Equal for all layers."
        "biases": {"ratio": 1.0, "kind": "weights", "factor": 10.0, "drops": (), "levels": 2},
        "layers": (),
    },
    # The source's batches are the same in each epoch; the text says nothing of their order.
    "train": {
        "batch_size": 128,
        "epochs": 90.0,
        "steps": 0,
        "order": "shuffled",
        "blocks": 0,
        "log_every": 100,
        "stall_steps": 5000,  # after which Caffe's users started anew
    },
    "evaluation": {"batch_size": 256, "every_epochs": 1.0, "views": 1},
    "checkpoint": {
        "every_steps": 2000,
        "keep": 3,
        "keep_epochs": 0.0,
        "keep_best": True,
        "when_full": "go_on",
    },
    "limits": {"heartbeat": 20, "stuck": 1800},
    "expected": {"top1_error": 0.407, "views": 10},  # Table 2, one network
    "profile_steps": 0,
    "wandb": "",
}


def get_config(variant: str = "paper") -> "ConfigDict":
    """The paper's text, changed by variants."""
    # Here, as the benchmarks and the tests of the core read PAPER on machines without ml_collections.
    from ml_collections import ConfigDict

    config = variants.apply(ConfigDict(PAPER), variant)
    if variant in variants.VARIANTS:
        config.expected = variants.VARIANTS[variant].expected
    return config


def narrow(network: Any, widths: tuple[int, ...]) -> None:
    """Gives conv1 to fc7 other widths, and all weights what narrow layers need to pass a signal on."""
    deviations = (0.01, 0.03, 0.03, 0.03, 0.03, 0.06, 0.06)
    names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    for name, width, deviation in zip(names, widths, deviations, strict=True):
        network[name]["width"], network[name]["deviation"] = width, deviation
    network["conv6"]["deviation"] = network["fc8"]["deviation"] = 0.03
