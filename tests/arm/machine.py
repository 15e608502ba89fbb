"""A small ARM Linux beside this machine: Debian's qemu-user emulator, Debian's aarch64 Python, PyPI's aarch64 wheels.

Nothing is installed and no root is needed: apt resolves into folders of its own, packages are only unpacked, and all of
it lies in .cache/arm (about 450 MB, 160 MB to download). QEMU must be 8.2 or newer: from there on it shows programs an
ARM /proc/cpuinfo, without which onnxruntime does not start.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent.parent
HOME = ROOT / ".cache" / "arm"
PYTHON = "3.13"  # Debian 13's
PACKAGES = [f"python{PYTHON}", "libstdc++6", "qemu-user:amd64"]
SOURCE = "deb [arch={arch} signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main"
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"]


class ArmMachine:
    """Made by `prepare`; runs Python on an emulated processor."""

    def __init__(self, home: Path = HOME) -> None:
        self.qemu, self.root = home / "qemu" / "usr" / "bin" / "qemu-aarch64", home / "root"
        self.wheels, self.site = home / "wheels", home / "site"

    def python(self, cpu: str, *args: str | Path, path: str = "", folder: Path = ROOT) -> str:
        """Standard output of `python *args` on a processor that QEMU names.

        Args:
            path: where Python finds packages; "" is this checkout and PyPI's wheels.
            folder: where the program runs.
        """
        command = [self.qemu, "-cpu", cpu, "-L", self.root, self.root / "usr" / "bin" / f"python{PYTHON}", *args]
        environment = {
            "PYTHONPATH": path or f"{ROOT}:{self.site}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": os.environ["HOME"],
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def requirements() -> list[str]:
    """What the device installs to encode pictures and video files, and to ask about them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras["client"], *extras["video"]]


def prepare(home: Path = HOME) -> ArmMachine:
    """Download and unpack what is missing; again where the requirements changed."""
    key = hashlib.sha256(repr((PACKAGES, requirements(), (ROOT / "constraints.txt").read_text())).encode()).hexdigest()
    stamp = home / "ready"
    if not stamp.is_file() or stamp.read_text() != key:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _debian(home)
        _wheels(home)
        stamp.write_text(key)
    return ArmMachine(home)


def _debian(home: Path) -> None:
    apt = home / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (apt / folder).mkdir(parents=True)
    (apt / "etc" / "sources.list").write_text(SOURCE.format(arch="arm64,amd64") + "\n")
    (apt / "apt.conf").write_text(
        f'Dir "{apt}"; Dir::State "state"; Dir::State::status "/dev/null"; Dir::Cache "cache"; Dir::Etc "etc"; '
        'Dir::Etc::SourceParts "/dev/null"; APT::Architecture "arm64"; APT::Architectures {"arm64"; "amd64";}; '
        'APT::Sandbox::User ""; Acquire::Languages "none";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    for command in (["update"], ["install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", "-qq", *command], env=environment, check=True, stdout=subprocess.DEVNULL)
    for folder in (home / "root" / "usr" / "lib", home / "qemu"):
        folder.mkdir(parents=True)
    (home / "root" / "lib").symlink_to("usr/lib")
    for package in (apt / "cache" / "archives").glob("*.deb"):
        into = home / ("qemu" if package.name.startswith("qemu-user_") else "root")
        subprocess.run(["dpkg-deb", "-x", package, into], check=True)
    shutil.rmtree(apt)
    for other in (home / "qemu" / "usr" / "bin").iterdir():
        if other.name != "qemu-aarch64":
            other.unlink()


def _wheels(home: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    there = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
    there += [word for name in PLATFORMS for word in ("--platform", name)]
    pinned = ["-c", ROOT / "constraints.txt", *requirements()]
    subprocess.run([*pip, "download", "--dest", home / "wheels", *there, *pinned], check=True)
    local = ["--no-index", "--find-links", home / "wheels", "--target", home / "site"]
    subprocess.run([*pip, "install", *local, *there, *pinned], check=True)


if __name__ == "__main__":
    print(prepare().python("cortex-a72", "-c", "import platform; print(platform.machine(), platform.python_version())"))
