"""On the path of a run under test: a power cut at the n-th file that gets its name, whichever
process names it."""

import os
import signal
import sys

_replace = os.replace


def _replace_until_the_cut(source, target, **options):
    with open(os.environ["POWER_CUT_COUNT"], "ab") as count:  # noqa: PTH123 (this runs before anything is imported)
        count.write(b".")
        count.flush()
        number = count.tell()
    cut = number == int(os.environ["POWER_CUT_AT"])
    if not cut or number % 2:  # an odd one still gets its name
        _replace(source, target, **options)
    if cut:
        if "ipykernel" in " ".join(sys.orig_argv):
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


if "POWER_CUT_AT" in os.environ:
    os.replace = _replace_until_the_cut
