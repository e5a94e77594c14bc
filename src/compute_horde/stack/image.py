"""A small job image: from a registry where one answers, otherwise made from this machine's static busybox."""

import asyncio
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import aiodocker
from aiohttp import ClientError

PUBLIC_IMAGE = "busybox:1.37"
LOCAL_IMAGE = "compute-horde/busybox:local"
PULL_SECONDS = 60
DOCKERFILE = b'FROM scratch\nCOPY rootfs/ /\nENV PATH=/bin\nCMD ["sh"]\n'


class NoImage(RuntimeError):  # noqa: N818 - reads as what happened
    """No image can be had. The text says what to install."""


async def small_image(docker_url: str | None = None) -> str:
    """The name of an image with ``sh`` and ``awk`` that the engine has.

    :raises NoImage: no registry answers and there is no static busybox to make one from.
    """
    docker = aiodocker.Docker(url=docker_url) if docker_url else aiodocker.Docker()
    try:
        for name in (LOCAL_IMAGE, PUBLIC_IMAGE):
            if await _present(docker, name):
                return name
        if await _pulled(docker, PUBLIC_IMAGE):
            return PUBLIC_IMAGE
        await _build(docker, _static_busybox())
    finally:
        await docker.close()
    return LOCAL_IMAGE


async def _present(docker: aiodocker.Docker, name: str) -> bool:
    try:
        await docker.images.inspect(name)
    except aiodocker.DockerError:
        return False
    return True


async def _pulled(docker: aiodocker.Docker, name: str) -> bool:
    try:
        async with asyncio.timeout(PULL_SECONDS):
            await docker.images.pull(name)
        return await _present(docker, name)
    except (aiodocker.DockerError, ClientError, TimeoutError):
        return False


def _static_busybox() -> Path:
    found = next((Path(p) for p in (shutil.which("busybox"), "/bin/busybox") if p and Path(p).is_file()), None)
    if found is None or not _is_static(found):
        raise NoImage(
            f"no registry answers for {PUBLIC_IMAGE}, and there is no static busybox to make an image from; "
            "install one (Debian: apt-get install busybox-static)"
        )
    return found


def _is_static(program: Path) -> bool:
    """A dynamic ELF names its loader near its beginning; a static one names none."""
    with program.open("rb") as file:
        return b"/ld-" not in file.read(4096)


async def _build(docker: aiodocker.Docker, busybox: Path) -> None:
    context = await asyncio.to_thread(build_context, busybox)
    await docker.images.build(fileobj=context, encoding="identity", tag=LOCAL_IMAGE, rm=True)


def build_context(busybox: Path) -> io.BytesIO:
    """A build context (tar) whose root file system is one static busybox with a link for each of its applets."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)  # noqa: S603 - fixed
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        _add(tar, "Dockerfile", DOCKERFILE)
        _add(tar, "rootfs/bin/busybox", busybox.read_bytes(), mode=0o755)
        for applet in listed.stdout.split():
            if applet != "busybox":
                _link(tar, f"rootfs/bin/{applet}", "busybox")
        for folder, mode in (("rootfs/tmp", 0o1777), ("rootfs/etc", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "rootfs/etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    stream.seek(0)
    return stream


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)
