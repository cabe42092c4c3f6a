"""A small two-tower AlexNet on Fashion-MNIST: 60,000 grey pictures of 28 x 28 pixels, and 10,000 to validate.

    python -m alexnet_jax.prepare --dataset=fashion_mnist --size=28       # TFDS downloads 30 MB, once
    python -m alexnet_jax.main --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

Expected: not run yet with this program. Cost: 40 epochs are 19,000 steps.

Everything that is not set here is that of configs/cifar10.py.
"""

from ml_collections import ConfigDict

from configs import cifar10, variants


def get_config(variant: str = "paper") -> ConfigDict:
    config = cifar10.get_config()
    config.data.name = "fashion_mnist"
    config.data.size = 28
    config.network.image_size = 24  # 20-10-10-5-5-5-5-2
    config.augment.colour_noise = 0.0  # the pictures are grey
    config.train.epochs = 40.0
    config.schedule.drops = (30.0, 35.0)
    config.expected = dict(variants.UNKNOWN)
    return variants.apply(config, variant)
