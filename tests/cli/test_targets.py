"""``pimc targets``."""

from __future__ import annotations

import json
from collections.abc import Callable

from pimc.targets import load_target


def test_list(pimc_cli: Callable) -> None:
    assert pimc_cli("targets").out.splitlines()[0].startswith("hpim ")
    assert "hpim" in json.loads(pimc_cli("targets", "--json").out)["targets"]


def test_show_every_figure_under_the_key_that_set_takes(pimc_cli: Callable) -> None:
    before = dict(line.split(" = ", 1) for line in pimc_cli("targets", "hpim").out.splitlines())
    assert before["hbm.timing.nFAW"] == str(load_target("hpim").hbm.timing["nFAW"])
    assert before["digest"] == load_target("hpim").digest
    figures = [f"{key}={value}" for key, value in before.items() if key != "digest"]
    assert load_target("hpim", figures).digest == before["digest"]
    result = pimc_cli("targets", "hpim", "--set", "hbm.timing.nFAW=99")
    after = dict(line.split(" = ", 1) for line in result.out.splitlines())
    assert {key for key in before if before[key] != after[key]} == {"hbm.timing.nFAW", "digest"}


def test_json(pimc_cli: Callable) -> None:
    content = json.loads(pimc_cli("targets", "hpim", "--json").out)
    assert content["cores"]["count"] == load_target("hpim").cores.count
