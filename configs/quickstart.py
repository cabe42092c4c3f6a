"""A narrow two-tower AlexNet learns toyshapes on two simulated devices, in minutes on two cores.

    make quickstart
    python -m alexnet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Expected: top-1 validation error 3.2 % where it was measured, on CPUs; at most 10 % (chance is 90 %).

Everything that is not set here is the paper's, from configs/imagenet.py.
"""

from ml_collections import ConfigDict

from configs import imagenet, variants


def get_config(variant: str = "paper") -> ConfigDict:
    config = imagenet.get_config()
    config.mesh = {"data": 0, "tower": 0, "cpu_devices": 2}  # 1 x 2 in one process

    # 72 px pictures, crops of 64: 15-7-7-3-3-3-3-1 instead of 55-27-27-13-13-13-13-6.
    config.data.name = "toyshapes"
    config.data.size = 72
    config.data.threads = 1  # reads many times as fast as both devices learn, and leaves them the cores
    config.network.image_size = 64
    config.network.classes = 10
    imagenet.narrow(config.network, (48, 96, 128, 128, 96, 256, 256))

    # 4,000 pictures: smaller batches make more steps of them, and the drops are fixed, as a stall of the
    # error on 1,000 pictures is mostly noise.
    config.train.batch_size = 32
    config.train.blocks = 4  # the same bits on any mesh of 1, 2 or 4 rows
    config.train.epochs = 18.0
    config.train.log_every = 100
    config.train.stall_steps = 500
    config.schedule.kind = "drops"
    config.schedule.drops = (13.0, 16.0)
    config.evaluation.batch_size = 200
    config.evaluation.every_epochs = 2.0
    config.checkpoint.every_steps = 500
    config.expected = {"top1_error": 0.032, "views": 1}  # measured, on CPUs
    return variants.apply(config, variant)
