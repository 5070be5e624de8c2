"""Other processes: what they are told, and that they end."""

import json
import time
from pathlib import Path

from torch import distributed as dist

from throughline.claims.shared.process_groups import followers, process_group

PROGRAM = "import json, sys, time; j = json.loads(sys.argv[1]); open(j['file'], 'w').write(sys.argv[1]); time.sleep(60)"


def test_a_follower_knows_its_job_and_ends_with_the_block(tmp_path: Path) -> None:
    file = tmp_path / "told"
    began = time.monotonic()
    with followers(PROGRAM, {"file": str(file), "seed": 3}, 2) as address:
        while not (file.exists() and file.read_text()):
            assert time.monotonic() - began < 30
            time.sleep(0.01)
    assert json.loads(file.read_text()) == {"file": str(file), "seed": 3, "address": address, "rank": 1}
    assert address.startswith("tcp://127.0.0.1:")


def test_one_process_needs_no_group() -> None:
    with followers(PROGRAM, {}, 1) as address, process_group(address, 0, 1):
        assert not dist.is_initialized()
