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


def _conv(width: int, size: int, stride: int, padding: int, bias: float, *then: str) -> dict[str, Any]:
    """Weights of N(0, 0.01), and what follows the convolution."""
    window = {"size": size, "stride": stride, "padding": padding, "rounding": "up"}
    return {"width": width, "deviation": 0.01, "bias": bias} | window | {"then": then}


# What the text leaves open follows the authors' source, and says so.
PAPER: dict[str, Any] = {
    "seed": 0,
    "init_from": "",
    "network": {
        "towers": 2,  # section 3.2: two GPUs
        "image_size": 224,  # section 4.1
        "classes": 1000,
        # Section 3.5: width, size, stride and padding. Section 5: biases of 1 in conv2, conv4, conv5 and the
        # hidden layers.
        "conv1": _conv(96, 11, 4, 0, 0.0, "activation", "lrn", "max_pool"),
        "conv2": _conv(256, 5, 1, 2, 1.0, "activation", "lrn", "max_pool"),
        "conv3": _conv(384, 3, 1, 1, 0.0, "activation"),
        "conv4": _conv(384, 3, 1, 1, 1.0, "activation"),
        "conv5": _conv(256, 3, 1, 1, 1.0, "activation", "max_pool"),
        "conv6": _conv(0, 3, 1, 1, 1.0, "activation"),
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
            "over": "tower",
        },
        "map_norm": {"size": 5, "k": 1.0, "alpha": 1e-3, "beta": 0.75},  # the source only
        "pool": {"window": 3, "stride": 2, "rounding": "up"},  # section 3.4
        "batch_norm": {"epsilon": 1e-4, "decay": 0.9},  # not in 2012
        "dropout": 0.5,  # section 4.2
        "precision": "float32",
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
        "parts": 0,
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
