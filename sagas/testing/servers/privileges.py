"""Run servers as another user when we are root, whom PostgreSQL refuses."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path


def unprivileged_user() -> pwd.struct_passwd | None:
    """Return who runs the servers in place of root; None if we are not root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def let_pass(path: Path, top: Path) -> None:
    """Let every user pass through, but not list, a path up to `top`, and the temporary directories above."""
    temporary = Path(tempfile.gettempdir()).resolve()
    path, top = path.resolve(), top.resolve()
    for directory in (path, *path.parents):
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & 0o001:
            continue
        # Temporary directories are made private by default; any other is closed by someone's decision.
        if not directory.is_relative_to(top) and temporary not in directory.parents:
            raise PermissionError(f"other users may not pass through {directory}")
        directory.chmod(mode | 0o011)


def runnable(user: pwd.struct_passwd, executable: Path, home: Path) -> Path:
    """Return a wheel's program at `package/*/*/`, copied to `home` with its package if the user cannot run it there.

    A copy leaves the permissions of an installation that is not ours as they are.
    """
    command = [str(executable), "--version"]
    with suppress(PermissionError):
        done = subprocess.run(
            command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd="/", capture_output=True, check=False
        )
        if done.returncode == 0:
            return executable
    package = executable.parents[2]
    for part in package.parent.glob(f"{package.name}*"):  # with its libraries
        shutil.copytree(part, home / part.name)
        for path in (home / part.name, *(home / part.name).rglob("*")):
            path.chmod(0o755)
    return home / executable.relative_to(package.parent)
