"""The mesh of a run, on the devices that there are."""

import dataclasses

import jax
from jax.sharding import Mesh

from alexnet_jax.config.fields import Config
from alexnet_jax.errors import RefusedError
from alexnet_jax.sharding.blocks import check_blocks
from alexnet_jax.sharding.mesh import open_mesh
from alexnet_jax.sharding.platform import simulate_cpu_devices
from alexnet_jax.sharding.rows import check_batch


def open_run_mesh(config: Config) -> tuple[Mesh, str]:
    """The mesh of a config, and in words what was chosen, if anything was."""
    wanted = config.mesh
    if wanted.cpu_devices:
        simulate_cpu_devices(wanted.cpu_devices)
    check_devices([device.process_index for device in jax.devices()])
    mesh = open_mesh(dataclasses.replace(wanted, cpu_devices=0), config.network.towers)
    check_hosts(mesh)
    data, tower = mesh.devices.shape
    check_batch(data, "train.batch_size", config.train.batch_size)
    check_batch(data, "evaluation.batch_size", config.evaluation.batch_size)
    check_blocks(data, config.train.blocks)
    chosen = not (wanted.data and wanted.tower)
    return mesh, f"{data} x {tower} (data x tower): the widest tower axis that fits" if chosen else ""


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
