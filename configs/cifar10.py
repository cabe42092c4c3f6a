"""A small two-tower AlexNet on CIFAR-10: 50,000 pictures of 32 x 32 pixels to train, 10,000 to validate.

    python -m alexnet_jax.prepare --dataset=cifar10 --size=32       # TFDS downloads 170 MB, once
    python -m alexnet_jax.main --config=configs/cifar10.py --workdir=runs/cifar10

Expected: not run yet with this program. Cost: 120 epochs are 47,000 steps.

Everything that is not set here is the paper's, from configs/imagenet.py. This is AlexNet made to fit small
pictures, not the four-layer network of the paper's Figure 1.
"""

from ml_collections import ConfigDict

from configs import imagenet, variants


def get_config(variant: str = "paper") -> ConfigDict:
    config = imagenet.get_config()
    config.data.name = "cifar10"
    config.data.size = 32

    # Crops of 28, and kernels of 5 x 5 at every pixel: 24-12-12-6-6-6-6-3 instead of 55-27-27-13-13-13-13-6.
    config.network.image_size = 28
    config.network.conv1.size, config.network.conv1.stride = 5, 1
    config.network.classes = 10
    imagenet.narrow(config.network, (64, 128, 192, 192, 128, 512, 512))

    # Fixed drops: what decides a plateau on ImageNet is noise on 10,000 pictures.
    config.train.epochs = 120.0
    config.schedule.kind = "drops"
    config.schedule.drops = (100.0, 110.0)
    config.evaluation.batch_size = 1000
    config.expected = dict(variants.UNKNOWN)
    return variants.apply(config, variant)
