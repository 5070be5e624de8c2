"""Gallery scripts in processes of their own, forked from one that has imported what all of them need."""

import multiprocessing
import os
import runpy
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

__all__ = ["drawn"]

PATIENCE = 300.0  # seconds for one script
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["matplotlib.pyplot", "sklearn.datasets", "tests.docs.gallery", "torch._dynamo"])


def drawn(script: Path, folder: Path) -> str:
    """Run ``script`` in ``folder``, where there is no data set; what went wrong, or an empty text."""
    ours, theirs = FRESH.Pipe(duplex=False)
    process = FRESH.Process(target=draw, args=(script, folder, theirs))
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
