"""The mesh of a run, on the devices that there are."""

import dataclasses

import jax
from jax.sharding import Mesh

from alexnet_jax.config import Config
from alexnet_jax.errors import RefusedError
from alexnet_jax.mesh import check_batch, check_blocks, check_towers, open_mesh, simulate_cpu_devices
from alexnet_jax.planning.chips import chip_of
from alexnet_jax.planning.cost import choose_mesh


def open_run_mesh(config: Config, hosts: int) -> tuple[Mesh, str]:
    """The mesh of a config, and why it is that where it was chosen: fields that are 0, by a step's cost."""
    check_towers(config)
    if config.mesh.cpu_devices:
        simulate_cpu_devices(config.mesh.cpu_devices)
    devices = jax.devices()
    check_devices([device.process_index for device in devices])
    (data, tower), why = (config.mesh.data, config.mesh.tower), ""
    if not (data and tower):
        each, chip = len(devices) // hosts, chip_of(devices[0].device_kind)
        (data, tower), reason = choose_mesh(config, hosts, each, chip)
        why = f"{data} x {tower} (data x tower): {reason}"
    placed = dataclasses.replace(config.mesh, data=data, tower=tower, cpu_devices=0)
    mesh = open_mesh(dataclasses.replace(config, mesh=placed))
    check_hosts(mesh)
    check_batch(mesh, "train.batch_size", config.train.batch_size)
    check_batch(mesh, "evaluation.batch_size", config.evaluation.batch_size)
    check_blocks(mesh, config.train.blocks)
    return mesh, why


def check_devices(owners: list[int]) -> None:
    """Every process has as many devices as the others."""
    counts = [owners.count(process) for process in range(jax.process_count())]
    odd = next((process for process, count in enumerate(counts) if count != counts[0]), None)
    if odd is not None:
        raise RefusedError(
            f"process {odd} has {counts[odd]} devices, process 0 has {counts[0]}: all must have as many, "
            "which CUDA_VISIBLE_DEVICES or --local_device_ids can see to"
        )


def check_hosts(mesh: Mesh) -> None:
    """Every process has a part in the mesh."""
    used = {device.process_index for device in mesh.devices.flat}
    idle = sorted(set(range(jax.process_count())) - used)
    if idle:
        data, tower = mesh.devices.shape
        owners = [device.process_index for device in jax.devices()]
        each = ", ".join(str(owners.count(process)) for process in range(jax.process_count()))
        raise RefusedError(
            f"mesh {data} x {tower} (data x tower) leaves process{'es' if len(idle) > 1 else ''} "
            f"{', '.join(map(str, idle))} without work: the processes have {each} devices; choose "
            "--config.mesh.data=0, which takes them all, or start fewer processes"
        )
