"""Makes .venv from the lock, and does nothing when it is there already. Needs nothing but Python; `make` calls it.

Written for any Python 3, so that one that is too old is told so in one line.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("FEDUI_VENV", str(ROOT / ".venv")))
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "fedui-stamp"
OLDEST = (3, 11)
TORCH = "torch==2.13.0"


def fail(line):
    sys.exit("make: " + line)


def main(arguments):
    check_python()
    if not STAMP.exists() or STAMP.read_text() != fingerprint():
        make_venv()
        install()
        STAMP.write_text(fingerprint())
    if "--torch" in arguments or ("--torch-if-local" in arguments and has_local_torch()):
        install_torch()


def check_python():
    if sys.version_info < OLDEST:
        fail(
            "FedUI needs Python {0}.{1} or newer; this is {2} at {3}. Name another: make PYTHON=python3.12 …".format(
                OLDEST[0], OLDEST[1], platform.python_version(), sys.executable
            )
        )
    if not os.access(str(ROOT), os.W_OK):
        fail("You may not write to {0}. Clone FedUI to a folder of your own.".format(ROOT))


def fingerprint():
    """Of all that decides what is installed, and where."""
    parts = [LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def make_venv():
    print("Making {0} …".format(VENV), flush=True)
    if VENV.exists():
        shutil.rmtree(str(VENV))
    result = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if result.returncode:
        fail(
            "python -m venv failed. On Debian or Ubuntu: apt-get install python3-venv. It said: "
            + (result.stdout + result.stderr).strip().splitlines()[-1]
        )


def install():
    print("Installing from {0} …".format(LOCK.name), flush=True)
    if pip("install", "--quiet", "uv", check=False) == 0:
        uv = [str(VENV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(PYTHON)]
        run([*uv, "--require-hashes", "--requirement", str(LOCK)])
        run([*uv, "--no-deps", "--editable", str(ROOT)])
    else:  # uv is quicker, and has no wheel for every platform
        pip("install", "--quiet", "--require-hashes", "--requirement", str(LOCK))
        pip("install", "--quiet", "--no-deps", "--editable", str(ROOT))


def install_torch():
    """Outside the lock, because platforms differ: a CPU build where pip finds one, and never gigabytes by surprise."""
    if subprocess.run([str(PYTHON), "-c", "import torch"], capture_output=True, check=False).returncode == 0:
        return
    print("Installing {0} …".format(TORCH), flush=True)
    index = os.environ.get("FEDUI_TORCH_INDEX")
    if index:
        pip("install", "--quiet", "--index-url", index, TORCH)
    elif has_local_torch():
        pip("install", "--quiet", TORCH + "+cpu")  # named in full: pip must not turn to an index for it
    elif sys.platform == "linux":
        fail(
            "pip knows no CPU build of PyTorch here, and the default for Linux has gigabytes of CUDA. Set FEDUI_TORCH_INDEX "
            "to PyTorch's index of CPU builds (see pytorch.org, Get Started), or install torch into .venv yourself."
        )
    else:
        pip("install", "--quiet", TORCH)


def has_local_torch():
    """Whether a wheel for the CPU lies in a folder that pip is configured to look into."""
    found = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    folders = [line.split("=", 1)[1].strip().strip("'") for line in found.splitlines() if "find-links=" in line]
    folders.append(os.environ.get("PIP_FIND_LINKS", ""))
    places = [Path(place) for folder in folders for place in folder.split()]
    return any(place.is_dir() and list(place.glob(TORCH.replace("==", "-") + "+cpu-*.whl")) for place in places)


def pip(*arguments, check=True):
    return run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments], check=check)


def run(command, check=True):
    code = subprocess.run(command, check=False).returncode
    if check and code:
        fail("{0} failed with exit code {1}; its own words are above.".format(Path(command[0]).name, code))
    return code


if __name__ == "__main__":
    main(sys.argv[1:])
