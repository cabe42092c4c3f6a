"""The claims of the paper and the trials of its authors, as changes of a config: python -m configs.variants

    --config=configs/imagenet.py:source              the authors' own net, their config 145
    --config=configs/imagenet.py:source,no_lrn       changes are made from left to right

Figures are errors on the 2012 validation split over ten views, of the authors' logs where there is a number
(#), else of the paper, unless their origin says otherwise; the difference is to #145, or to what the paper
compares with.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Change = Callable[[Any], None]
CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")
LAYERS = (*CONVS, "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class Variant:
    """A change, in words and in code, and what it did to the authors' net."""

    words: str
    change: Change
    origin: str = ""
    top1: float | None = None
    top5: float | None = None
    difference: str = ""
    views: int = 10  # of the errors; 0: they are not of the 2012 validation split

    @property
    def expected(self) -> dict[str, Any]:
        """The fields of a config for ImageNet with this change alone."""
        known = bool(self.top1 and self.views)
        return {"top1_error": self.top1 if known else 0.0, "views": self.views if known else 0}


UNKNOWN = {"top1_error": 0.0, "views": 0}  # what a run is expected to come to


def apply(config: Any, names: str, own: Mapping[str, Change] | None = None) -> Any:
    """The config with the variants of a comma-separated list; its `own` come before those of all."""
    known = {name: variant.change for name, variant in VARIANTS.items()} | (own or {})
    for name in names.split(","):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            beside = f", beside {', '.join(own)}" if own else ""
            raise ValueError(
                f"there is no variant {name!r}; the nearest name is {near}; "
                f"python -m configs.variants lists them{beside}"
            )
        if name != "paper":
            config.expected = dict(UNKNOWN)  # unless it knows better
        known[name](config)
    return config


def _paper(config: Any) -> None:
    """The paper itself: changes nothing."""
    del config


def _source(config: Any) -> None:
    """Every difference between the text and config 145 that is known."""
    network, augment = config.network, config.augment
    network.lrn.alpha_times = "mean"
    _lrn_first(network.conv1)
    _drop(network.conv2, "map_norm")
    _insert(network.conv2, "map_norm", before=("max_pool", "average_pool", "batch_norm"))
    for name in ("conv3", "conv4", "conv5", "conv6"):
        network[name].deviation = 0.03
    augment.shared_by, augment.last_offset, augment.mean = 32, True, "centre"
    augment.colour_divides = True
    config.train.order = "fixed"
    config.schedule.biases.ratio, config.schedule.biases.kind = 2.0, "drops"  # and there are none
    _by_hand(25, 51, 67, 72, 79, 91)(config)


def _by_hand(
    first: float, second: float, conv1: float, frozen: float, last: float | None, stop: float
) -> Change:
    """Epochs at which the authors divided the rate by ten, twice; then what they did to conv1; and so on."""

    def change(config: Any) -> None:
        schedule = config.schedule
        schedule.kind, schedule.factor = "drops", 10.0
        schedule.drops = tuple(float(epoch) for epoch in (first, second, last) if epoch)
        slowed = (("conv1", float(conv1), 1e-5),) if conv1 < frozen else ()
        schedule.layers = (*slowed, ("conv1", float(frozen), 0.0))
        config.augment.colour_until = float(conv1)
        config.train.epochs = float(stop)

    return change


def _dexp(config: Any) -> None:
    """The rate divided by 250 in 4 levels; that of biases, twice as high, by 10 in 2."""
    schedule = config.schedule
    schedule.kind, schedule.factor, schedule.levels, schedule.layers = "dexp", 250.0, 4, ()
    schedule.drops = ()
    biases = schedule.biases
    biases.ratio, biases.kind, biases.factor, biases.levels = 2.0, "dexp", 10.0, 2


def _pretrain(config: Any) -> None:
    """The recorded learning rates of #146 on Fall 2011: .001 in the convolutions, .01 above, then .001."""
    schedule, network = config.schedule, config.network
    schedule.kind, schedule.factor, schedule.drops = "drops", 10.0, (6.0,)
    schedule.layers = tuple((name, 0.0, 0.001) for name in _convs(network))
    config.augment.colour_until, config.train.epochs = 0.0, 8.11


def _fine_tune(config: Any) -> None:
    """As the authors went on from pre-trained nets; of several epochs that they noted, the last."""
    config.init_from, schedule = "?", config.schedule
    schedule.kind, schedule.learning_rate, schedule.factor = "drops", 0.001, 10.0
    schedule.drops = (22.0, 42.0)
    schedule.layers = (("conv1", 0.0, 1e-4), ("conv1", 7.0, 0.0))
    config.augment.colour_until, config.train.epochs = 38.0, 54.0


def _half(config: Any) -> None:
    """One tower, half the kernels; conv5 and the hidden layers are as large as in both (footnote 2)."""
    network = config.network
    network.towers = 1
    for name in ("conv1", "conv2", "conv3", "conv4"):
        network[name].width //= 2


def _towers(count: int) -> Change:
    def change(config: Any) -> None:
        config.network.towers = count

    return change


def _lrn_first(conv: Any) -> None:
    """LRN before the activation that it would follow."""
    if tuple(conv.then[:2]) == ("activation", "lrn"):
        conv.then = ("lrn", "activation", *conv.then[2:])


def _insert(conv: Any, operation: str, before: tuple[str, ...]) -> None:
    """An operation before the first of some others, or at the end."""
    at = next((i for i, other in enumerate(conv.then) if other in before), len(conv.then))
    conv.then = (*conv.then[:at], operation, *conv.then[at:])


def _drop(conv: Any, *operations: str) -> None:
    conv.then = tuple(operation for operation in conv.then if operation not in operations)


def _no_lrn(config: Any) -> None:
    for name in CONVS:
        _drop(config.network[name], "lrn", "map_norm")


def _batch_norm(config: Any) -> None:
    """AlexNet-BN: after every convolution, and after its pool; and what it begins with."""
    network = config.network
    _no_lrn(config)
    config.train.blocks = 0  # it takes a batch as a whole
    for name in _convs(network):
        network[name].then = (*network[name].then, "batch_norm")
        network[name].bias = 0.01
    for name in ("fc6", "fc7"):
        network[name].bias, network[name].deviation = 0.1, network[name].deviation / 2  # .005


def _lrn1_only(config: Any) -> None:
    _drop(config.network.conv2, "lrn", "map_norm")


def _lrn2_before_relu(config: Any) -> None:
    _lrn_first(config.network.conv2)


def _non_overlapping_pool(config: Any) -> None:
    """2 x 2 windows; conv2 and conv5 have a pixel less of zeros around, so that sizes are 28, 13 and 6."""
    network = config.network
    network.pool.window = network.pool.stride = 2
    network.conv2.padding, network.conv5.padding = 1, 0


def _no_conv3_crossing(config: Any) -> None:
    config.network.crossings = tuple(name for name in config.network.crossings if name != "conv3")


def _no_communication(config: Any) -> None:
    """Columns meet in the scores alone; wider conv2 and hidden layers make up for their inputs."""
    network = config.network
    network.crossings = ("fc8",)
    network.conv2.width = network.conv2.width * 5 // 4
    network.fc6.width, network.fc7.width = 2 * network.fc6.width, 2 * network.fc7.width


def _without(name: str) -> Change:
    """Leaves a layer out: the next one reads what it read, and has its pool, or the one before it has."""

    def change(config: Any) -> None:
        network, schedule, optimizer = config.network, config.schedule, config.optimizer
        network[name].width = 0
        hidden = (layer for layer in ("fc6", "fc7") if network[layer].width)
        left, place = (*_convs(network), *hidden, "fc8"), LAYERS.index(name)
        before = [layer for layer in left if LAYERS.index(layer) < place]
        after = [layer for layer in left if LAYERS.index(layer) > place]
        network.crossings = tuple(sorted({after[0] if x == name else x for x in network.crossings}))
        if name in CONVS:
            beside = [layer for layer in after if layer in ("conv3", "conv4", "conv5")] or before[-1:]
            for pool in ("max_pool", "average_pool"):
                if pool in network[name].then:
                    _insert(network[beside[0]], pool, before=("batch_norm",))
        network.unshared = tuple(layer for layer in network.unshared if layer != name)
        schedule.layers = tuple(own for own in schedule.layers if own[0] != name)
        optimizer.layer_decay = tuple(own for own in optimizer.layer_decay if own[0] != name)

    return change


def _convs(network: Any) -> tuple[str, ...]:
    """The convolutions that there are."""
    return tuple(name for name in CONVS if network[name].width)


def _six_convs(config: Any) -> None:
    """As wide as the one before, over the last pool, reading both towers."""
    network = config.network
    network.conv6.width = network[_convs(network)[-1]].width
    network.crossings = ("conv6", *network.crossings)


def _no_weight_decay(config: Any) -> None:
    config.optimizer.weight_decay, config.optimizer.layer_decay = 0.0, ()


def _set(path: str, value: Any) -> Change:
    def change(config: Any) -> None:
        *groups, field = path.split(".")
        for group in groups:
            config = config[group]
        config[field] = value

    return change


VARIANTS = {
    "paper": Variant("the text of the paper", _paper, "Table 2", 0.407, 0.182),
    "source": Variant("the authors' config", _source, "#145", 0.406640, 0.182100),
    "half": Variant(
        "one tower with half the kernels",
        _half,
        "145-half, 2010 test",
        0.391680,
        0.182287,
        "+1.7 / +1.2",
        views=0,
    ),
    "one_tower": Variant("all kernels in one tower: no groups", _towers(1)),
    "four_towers": Variant("as many kernels in four towers", _towers(4)),
    "no_lrn": Variant("no normalisation at all", _no_lrn, "#148", 0.420340, 0.193620, "+1.37 / +1.15"),
    "lrn1_only": Variant("none after conv2", _lrn1_only, "#167", 0.404880, 0.181180, "-0.18 / -0.09"),
    "lrn2_before_relu": Variant(
        "LRN of conv2 before its ReLU", _lrn2_before_relu, "#166", 0.410960, 0.186740, "+0.43 / +0.46"
    ),
    "non_overlapping_pool": Variant(
        "pools of 2 x 2", _non_overlapping_pool, "#147", 0.410580, 0.185100, "+0.39 / +0.30"
    ),
    "no_conv3_crossing": Variant(
        "conv3 reads its own tower", _no_conv3_crossing, "#127", difference="significantly worse"
    ),
    "no_communication": Variant(
        "towers meet in fc8 alone", _no_communication, "#150", 0.418280, 0.193300, "+1.16 / +1.12"
    ),
    "tanh": Variant("tanh for ReLU", _set("network.activation", "tanh"), "Figure 1", difference="6 x slower"),
    "sigmoid": Variant("sigmoid for ReLU", _set("network.activation", "sigmoid")),
    "no_conv2": Variant("without conv2", _without("conv2"), "section 7", difference="about +2"),
    "no_conv3": Variant("without conv3", _without("conv3"), "section 7", difference="about +2"),
    "no_conv4": Variant("without conv4", _without("conv4"), "section 7", difference="about +2"),
    "no_conv5": Variant("without conv5", _without("conv5"), "section 7", difference="about +2"),
    "no_fc6": Variant("without fc6", _without("fc6")),
    "no_fc7": Variant("without fc7", _without("fc7")),
    "no_dropout": Variant(
        "no dropout", _set("network.dropout", 0.0), "section 4.2", difference="substantial overfitting"
    ),
    "no_colour_noise": Variant(
        "no colour noise", _set("augment.colour_noise", 0.0), "section 4.1", difference="more than +1"
    ),
    "no_weight_decay": Variant("no weight decay", _no_weight_decay, "section 5", difference="trains worse"),
    "batch_norm": Variant(
        "batch normalisation for LRN", _batch_norm, "arXiv 1708.03888, centre", 0.398, views=1
    ),
    "six_convs": Variant("a sixth convolution over the last pool", _six_convs, "#146"),
    "pretrain": Variant("for a run on more classes", _pretrain, "#146, Fall 2011"),
    "fine_tune": Variant("for a run from such a one (init_from)", _fine_tune, "#146", 0.3899, 0.16622),
    "hand_145": Variant("rates by hand, as for #145", _by_hand(25, 51, 67, 72, 79, 91), "#145"),
    # Biases are known to end at .002; it is not known from when.
    "hand_145_2010": Variant("as for 145-2010", _by_hand(23, 51, 68, 72, 78, 93), "145-2010"),
    "hand_145_half": Variant("as for 145-half", _by_hand(20, 48, 66, 72, None, 96), "145-half"),
    "hand_147": Variant("as for #147", _by_hand(23, 51, 79, 79, 79, 90), "#147"),
    "hand_148": Variant("as for #148", _by_hand(22, 44, 69, 73, 86, 97), "#148"),
    "hand_150": Variant("as for #150", _by_hand(25, 49, 66, 72, 79, 92), "#150"),
    "dexp": Variant("the later automatic schedule", _dexp, "#170", 0.405280, 0.180480, "-0.14 / -0.16"),
}


def difference(names: str, base: str) -> str:
    """The effect of a single change on the authors' net; "" if it is not known."""
    listed, before = ([name for name in text.split(",") if name != "paper"] for text in (names, base))
    more = listed[len(before) :]
    if listed[: len(before)] != before or len(more) != 1 or more[0] not in VARIANTS:
        return ""
    return VARIANTS[more[0]].difference


def listing() -> str:
    """A line for each variant."""
    lines = [f"{'variant':<22}{'what':<42}{'figure of':<22}{'top-1':>7}{'top-5':>7}  difference, points"]
    for name, v in VARIANTS.items():
        errors = "".join(f"{100 * e:7.2f}" if e is not None else f"{'':7}" for e in (v.top1, v.top5))
        lines.append(f"{name:<22}{v.words:<42}{v.origin:<22}{errors}  {v.difference}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    print(listing())
