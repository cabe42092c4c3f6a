"""Configs are checked where they enter, and complain in one line."""

import dataclasses
import json
import operator
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.config.building import build
from alexnet_jax.config.fields import Config
from alexnet_jax.errors import ConfigError
from configs import cifar10, fashion_mnist, four_layers, imagenet, quickstart


def values(**changes: Any) -> dict:
    """The paper's config with some fields changed, written as section__name."""
    config = imagenet.get_config().to_dict()
    for path, value in changes.items():
        *sections, name = path.split("__")
        section = config
        for part in sections:
            section = section[part]
        section[name] = value
    return config


@pytest.mark.parametrize("recipe", [imagenet, quickstart, cifar10, fashion_mnist, four_layers])
def test_recipes_survive_json(recipe: Any) -> None:
    config = build(recipe.get_config().to_dict())
    assert build(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_variant_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="there is no variant 'sauce'; the nearest name is source"):
        imagenet.get_config("sauce")


PAPER = build(values())
COMPLAINTS = [
    ({"optimizer__momentun": 0.9}, "unknown field config.optimizer.momentun; .* config.optimizer.momentum$"),
    ({"init_from": "?"}, "init_from=. stands for a run to begin with"),
    ({"data__name": ""}, "data.name= must not be empty"),
    ({"sed": 1}, "unknown field config.sed; the nearest name is config.seed$"),
    ({"network__towers": 3}, "network.towers=3 must be 1, 2 or 4"),
    ({"network__towers": "2"}, "config.network.towers='2' must be of type int"),
    ({"network__dropout": float("nan")}, "config.network.dropout=nan must be of type float"),
    ({"network__lrn__k": 1e19}, r"config.network.lrn.k=1e\+19 must be of type float and at most 1e\+18"),
    ({"network__lrn__k": -(10**400)}, r"config.network.lrn.k=-1000*0 must be of type float and at most"),
    ({"schedule__factor": 0.1}, "schedule.factor=0.1 must be from 1, which changes nothing, to 1e6"),
    ({"network__fc7__width": 4097}, "network.fc7.width=4097 cannot be split over network.towers=2"),
    ({"network__conv1__width": 0}, "network.conv1.width=0 must be above 0"),
    ({"network__conv2__padding": 5}, "network.conv2.padding=5 must be from 0 to 4, size - 1"),
    ({"network__conv3__width": 0}, "network.crossings names conv3; there is conv1, conv2, conv4, conv5, fc6"),
    ({"network__crossings": ("fc9",)}, "network.crossings names fc9; there is conv1, .*, fc8$"),
    (
        {"network__conv1__then": ("lnr",)},
        "config.network.conv1.then='lnr' must be one of 'activation', 'lrn'",
    ),
    ({"network__conv1__then": ("lrn", "lrn")}, "network.conv1.then=.* has lrn 2 times"),
    (
        {"network__conv1__then": ("batch_norm", "lrn")},
        "conv1.then=.* has two norms, batch_norm and lrn: take",
    ),
    ({"network__conv1__then": ("max_pool", "average_pool")}, "has two pools, max_pool and average_pool"),
    ({"network__crossings": ("fc6", "fc6")}, "network.crossings names fc6 2 times"),
    ({"network__lrn__alpha": -1e-4}, "network.lrn.alpha=-0.0001 must not be negative"),
    ({"network__fc6__deviation": -0.1}, "network.fc6.deviation=-0.1 must not be negative"),
    ({"network__towers": 4, "network__conv1__width": 6}, "network.conv1.width=6 cannot be split over .*=4"),
    ({"network__pool__stride": 4}, "network.pool.stride=4 skips pixels: window=3"),
    ({"network__lrn": 5}, "config.network.lrn=5 must be a group of fields"),
    ({"network__lrn__size": 4}, "network.lrn.size=4 must be odd"),
    ({"network__activation": "gelu"}, "must be one of 'relu', 'tanh', 'sigmoid'"),
    ({"data__size": 200}, "data.size=200 is smaller than the crop, network.image_size=224"),
    ({"evaluation__views": 5}, "evaluation.views=5 must be 1"),
    ({"schedule__drops": (30.0, 20.0)}, "schedule.drops=.* must ascend"),
    ({"schedule__drops": (-1.0, 20.0)}, "schedule.drops=.* must not be negative"),
    (
        {"schedule__drops": (20.0,)},
        r"schedule.drops=\(20.0,\) is of the kind drops, and schedule.kind=plateau",
    ),
    ({"schedule__biases__drops": (2.0,)}, "schedule.biases.drops=.* and schedule.biases.kind=weights; say"),
    ({"schedule__warmup_epochs": 90.0}, "schedule.warmup_epochs=90.0 leaves nothing of train.epochs=90.0"),
    ({"seed": 2**32}, "seed=4294967296 must be below 2"),
    ({"train__batch_size": 0}, "train.batch_size=0 must be above 0"),
    ({"train__steps": -1}, "train.steps=-1 must not be negative"),
    ({"profile_steps": -1}, "profile_steps=-1 must not be negative"),
    ({"profile_steps": 1001}, "profile_steps=1001 must be at most 1000: they are kept in memory"),
    ({"expected__top1_error": 40.7}, "expected.top1_error=40.7 must be a fraction"),
    ({"expected__views": 3}, "expected.views=3 must be 1, 9 or 10, or 0 where it is not known"),
    ({"expected__views": 0}, "expected.top1_error=0.407 and expected.views=0: give both, or 0 for both"),
    ({"wandb": "me/alexnet"}, "wandb=me/alexnet must be the name of a project, without "),
]


def test_complaints() -> None:
    for changes, message in COMPLAINTS:
        with pytest.raises(ConfigError, match=message):
            build(values(**changes))


def fields(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The path of every field that holds a value, as `values` takes it, and its type."""
    for name, wanted in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(wanted):
            yield from fields(wanted, f"{prefix}{name}__")
        else:
            yield prefix + name, wanted


def of(wanted: Any) -> st.SearchStrategy:
    """Values of the type of a field, most of which it may have."""
    arguments = typing.get_args(wanted)
    if typing.get_origin(wanted) is typing.Literal:
        return st.sampled_from(arguments)
    if arguments and arguments[-1] is Ellipsis:
        return st.lists(of(arguments[0]), max_size=3, unique=True).map(sorted).map(tuple)
    if arguments:
        return st.tuples(*map(of, arguments))
    if wanted is str:
        return st.sampled_from(["conv2", "fc6", "toys", "a name", ""])
    return {int: st.integers(-1, 300), float: st.floats(-0.1, 2) | st.integers(0, 90), bool: st.booleans()}[
        wanted
    ]


def survives(path: str, value: Any) -> bool:
    """Whether a field may have a value, which then is all that is different, also after JSON."""
    try:
        config = build(values(**{path: value}))
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
        return False
    assert operator.attrgetter(path.replace("__", "."))(config) == value
    assert build(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    return True


def test_any_field_may_change() -> None:
    """Whatever does not survive JSON is complained of, in a line; nearly every field has another value."""
    changed = set()
    for path, wanted in fields(Config):
        before = operator.attrgetter(path.replace("__", "."))(PAPER)

        @settings(max_examples=20)
        @given(st.just(path), of(wanted), st.just(before))
        def change(path: str, value: Any, before: Any) -> None:
            if survives(path, value) and value != before:
                changed.add(path)

        change()
    assert len(changed) > 0.9 * len([*fields(Config)])


def test_a_missing_field() -> None:
    config = values()
    del config["train"]["epochs"]
    with pytest.raises(ConfigError, match=r"config\.train\.epochs is missing"):
        build(config)


def test_whole_numbers_serve_as_floats() -> None:
    assert build(values(train__epochs=2)).train.epochs == 2.0
