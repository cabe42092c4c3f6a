"""A small two-tower AlexNet on CIFAR-10: 50,000 pictures of 32 x 32 pixels to train, 10,000 to validate.

    python -m alexnet_jax.prepare --dataset=cifar10 --size=32       # TFDS downloads 170 MB, once
    python -m alexnet_jax.main --config=configs/cifar10.py --workdir=runs/cifar10

Expected: not run yet with this program. Cost: 120 epochs are 47,000 steps.

Everything that is not set here is the paper's, from configs/imagenet.py. This is AlexNet made to fit small
pictures, not the four-layer network of the paper's Figure 1.
"""

from ml_collections import ConfigDict

from configs import imagenet


def get_config() -> ConfigDict:
    config = imagenet.get_config()
    config.data.name = "cifar10"
    config.data.size = 32

    # Crops of 28, and kernels of 5 x 5 at every pixel: 24-11-11-5-5-5-5-2 instead of 55-27-27-13-13-13-13-6.
    config.network.image_size = 28
    config.network.conv1 = {"size": 5, "stride": 1}
    config.network.classes = 10
    config.network.conv_widths = (64, 128, 192, 192, 128)
    config.network.fc_widths = (512, 512)
    # N(0, 0.01) suits the paper's fan-in; narrow layers need more to pass a signal on.
    config.network.weight_deviations = (0.01, 0.03, 0.03, 0.03, 0.03, 0.06, 0.06, 0.03)

    # Fixed drops: what decides a plateau on ImageNet is noise on 10,000 pictures.
    config.train.epochs = 120.0
    config.schedule.kind = "drops"
    config.schedule.drops = (100.0, 110.0)
    config.evaluation.batch_size = 1000
    return config
