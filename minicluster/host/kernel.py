"""What this machine's kernel has: asked, not assumed."""

from __future__ import annotations

import platform
from pathlib import Path


def has(feature: str, root: Path = Path("/")) -> bool:
    """Whether this machine's kernel has a feature, named as its module is: loaded, built in, or there to be loaded."""
    return (root / "proc/net" / feature).exists() or has_module(root, feature)


def has_module(root: Path, name: str) -> bool:
    """Whether a kernel module is loaded, built in, or there to be loaded."""
    if (root / "sys/module" / name).exists():
        return True
    # The files list paths such as kernel/fs/overlayfs/overlay.ko.xz; names have - where the kernel has _, at times.
    wanted = {f"{name}.ko", f"{name.replace('_', '-')}.ko"}
    folder = root / "lib/modules" / platform.release()
    for listing in ("modules.builtin", "modules.dep"):
        try:
            with (folder / listing).open(encoding="utf-8") as lines:
                for line in lines:
                    file = line.partition(":")[0].rstrip().rpartition("/")[2]
                    if file.partition(".ko")[0] + ".ko" in wanted:
                        return True
        except OSError:
            continue
    return False
