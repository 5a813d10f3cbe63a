"""kill -9 at random moments: the short version of benchmarks/kill.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import kill


def test_endpoint(tmp_path):
    with kill.endpoint() as (url, answered), kill.Killer("endpoint", url, tmp_path, seed=3) as killer:
        killer.run(10)
    assert killer.kills == 10
    under_way = sum(answered.values()) - killer.saved_replies - killer.count
    assert under_way <= 10 * 2 * kill.CONCURRENCY  # a kill costs no more than what was under way


def test_transformers(tmp_path):
    with kill.Killer("transformers", kill.model(tmp_path), tmp_path, seed=4) as killer:
        killer.run(10)
    assert killer.kills == 10
