"""Gallery scripts in processes of their own."""

import os
import runpy
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from tests.forks import FORKS

__all__ = ["drawn"]

PATIENCE = 300.0  # seconds for one script


def drawn(script: Path, folder: Path) -> str:
    """Run ``script`` in ``folder``, where there is no data set; what went wrong, or an empty text."""
    ours, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=draw, args=(script, folder, theirs))
    process.start()
    theirs.close()
    try:
        return str(ours.recv()) if ours.poll(PATIENCE) else f"no end within {PATIENCE:g} seconds"
    except EOFError:
        return "died without a word"
    finally:
        process.kill()
        process.join()


def draw(script: Path, folder: Path, pipe: Connection) -> None:
    os.environ |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "THROUGHLINE_DATA": str(folder)}
    os.chdir(folder)
    import matplotlib.pyplot as plt

    try:
        runpy.run_path(str(script), run_name="__main__")
        pipe.send("" if plt.get_fignums() else "no figure was drawn")
    except BaseException:
        pipe.send(traceback.format_exc())
