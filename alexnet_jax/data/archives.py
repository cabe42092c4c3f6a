"""ImageNet's archives, and what TFDS needs to unpack them: looked at first, not found out after hours."""

import hashlib
import os
import resource
import shutil
from pathlib import Path

from etils import epath

from alexnet_jax.data.progress import Progress
from alexnet_jax.errors import RefusedError

PICTURES = 1_281_167 + 50_000  # in both
SHUFFLING = 1.05  # TFDS sorts its copy on disk, a bucket at a time
OPEN_FILES = 4096  # TFDS keeps a file open for each shard that it writes
# Bytes and MD5 of ImageNet's archives as they were published (the sizes also stand in TFDS's own list).
PUBLISHED = {
    "ILSVRC2012_img_train.tar": (147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
    "ILSVRC2012_img_val.tar": (6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
}


def check_archives(folder: Path | None, how: str) -> None:
    """Refuses ImageNet's archives where one is missing or not what was published."""
    if folder is None:
        raise RefusedError(
            f"no program may download ImageNet: get {' and '.join(PUBLISHED)} from image-net.org, and name "
            "their folder with --manual_dir; or name a folder of class folders with --folder"
        )
    missing = [name for name in PUBLISHED if not (folder / name).is_file()]
    if missing:
        raise RefusedError(
            f"{folder} lacks {' and '.join(missing)}: get both archives from image-net.org, and name their "
            "folder with --manual_dir"
        )
    for name, (published, md5) in PUBLISHED.items():
        size = (folder / name).stat().st_size
        if how != "any" and size != published:
            raise RefusedError(
                f"{folder / name} has {size} bytes, the published one {published}: download it again, or "
                "take it as it is with --archives=any"
            )
        if how == "md5" and (found := _md5(folder / name)) != md5:
            raise RefusedError(f"{folder / name} has the MD5 {found}, the published one {md5}: it is damaged")


def check_room(archives: Path, copy: epath.Path, packed: tuple[epath.Path, float] | None) -> None:
    """Refuses disks that are too small for TFDS's copy of both archives, and for what will be packed."""
    sizes = {name: (archives / name).stat().st_size for name in PUBLISHED}
    needs = [(copy, SHUFFLING * sum(sizes.values()), "TFDS's copy of both archives")]
    if packed and sizes == {name: size for name, (size, _) in PUBLISHED.items()}:
        needs.append((packed[0], PICTURES * packed[1], "the packed pictures"))
    asked: dict[int, list[tuple[float, str]]] = {}
    for place, need, what in needs:
        if "://" in os.fspath(place):  # a bucket has no end
            continue
        disk = first_there(place)
        all_of_it = asked.setdefault(Path(disk).stat().st_dev, [])
        all_of_it.append((need, f"{need / 1e9:.1f} GB for {what}"))
        free = shutil.disk_usage(disk).free
        if sum(need for need, _ in all_of_it) > free:
            raise RefusedError(
                f"{disk} has {free / 1e9:.1f} GB and needs {' and '.join(words for _, words in all_of_it)}: "
                "make room, choose another --tfds_dir or --data_dir, or take a sixth with --encoding=jpeg"
            )


def first_there(path: epath.Path) -> epath.Path:
    """The folder itself, or the first above it that is there."""
    return path if path.exists() else first_there(path.parent)


def allow_open_files() -> None:
    """Raises this process's limit of open files, or refuses one that is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < OPEN_FILES:
        if 0 <= hard < OPEN_FILES:
            raise RefusedError(
                f"only {hard} files may be open at once, {OPEN_FILES} are needed: ulimit -Hn 8192"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, Progress(f"MD5 of {path.name}", path.stat().st_size, "bytes") as progress:
        while block := file.read(2**24):
            digest.update(block)
            progress.update(len(block))
    return digest.hexdigest()
