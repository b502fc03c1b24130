"""Thirty random kills, seeded: every VM answers or is truthfully failed, nothing answered or recorded is lost, nothing is left. IRON_TEST_SEED and IRON_TEST_KILLS play one again"""

import os
import random

import kill_lab
from harness import Iron


def test_kill_runs():
    seed = int(os.environ.get("IRON_TEST_SEED") or random.randrange(1 << 30))
    with Iron("kills") as iron:
        kill_lab.run(iron, seed, int(os.environ.get("IRON_TEST_KILLS", "30")), kill_lab.VICTIMS)
