"""Replace this process with a program that gets a signal from the kernel when its parent ends.

`sagas.testing.processes` runs this file by path in a fresh interpreter. A preexec_fn could do the same, but it may
deadlock in a process with threads.
"""

import os
import signal
import sys


def main(owner: int, death_signal: int, uid: int, gid: int, command: list[str]) -> None:
    """Replace this process with the command, as the given user."""
    # An ignored signal stays ignored after exec: SIGINT below a shell's background job, SIGHUP below nohup.
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes  # import before the change of user, because the new user may not be allowed to read the file

        prctl = ctypes.CDLL(None).prctl
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # Set the signal after the change of user, which would clear it. 1 is PR_SET_PDEATHSIG.
        prctl(1, ctypes.c_ulong(death_signal), 0, 0, 0)
    if os.getppid() != owner:
        sys.exit("the process that owns this one has ended")
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
