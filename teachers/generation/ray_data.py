"""Workers over Ray Data: on this machine, or on the cluster that ``RAY_ADDRESS`` names.

On a cluster the corpus folder and the pictures have to lie under the same paths on every node, on a file system with
locks, and an endpoint's key in every node's environment.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from ...tasks.task import DataFault
from ..teacher import Teacher
from .scale import Scaled
from .worker import Block, Told, Worker

#: CPUs a worker claims: less than one, or Ray finds none for its reader on a machine with as many cores as workers.
CPUS = 0.5
#: How often a block is given to a worker again after one has died over it.
RETRIES = 2


def scaled(spec: str, limits: Mapping[str, Any], workers: int, teacher: Teacher) -> Scaled:
    """`collect` by so many workers over Ray Data.

    Args:
        spec: the teacher's, as it was typed. limits: of an endpoint, see `spec.teacher`; for all workers together.
        teacher: made of that spec; says what a worker needs.

    Raises:
        DataFault: Ray is not installed, or the teacher is none that several can ask.
    """
    if spec.startswith("batch:"):
        raise DataFault("--ray", "a batch: teacher is answered later and asked by one process", "leave --ray out")
    _ray()
    each = {name: None if limit is None else _share(limit, workers) for name, limit in limits.items()}
    gpus = 0 if spec.startswith("openai:") else getattr(teacher, "gpus", 1)

    def pool(blocks: Sequence[Block]) -> Generator[Told, None, None]:
        return _told(blocks, spec, each, workers, gpus)

    return Scaled(pool, workers)


def _told(
    blocks: Sequence[Block], spec: str, limits: Mapping[str, Any], workers: int, gpus: int
) -> Generator[Told, None, None]:
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, workers)
    try:
        dataset = ray.data.from_items([{"block": b.model_dump_json()} for b in blocks], override_num_blocks=len(blocks))
        # A block over which workers die again and again is left out, and the others go on.
        dataset.context.max_errored_blocks = -1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how often to try again will have to be said otherwise from Ray 2.64 on
            answered = dataset.map_batches(
                _Actor,
                fn_constructor_args=(spec, dict(limits)),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
                num_cpus=CPUS,
                num_gpus=gpus if ray.cluster_resources().get("GPU") else 0,
                max_task_retries=RETRIES,
            )
        with redirect_stdout(sys.stderr):  # Ray prints what workers print; standard output is the summary's
            for batch in answered.iter_batches(batch_size=None, prefetch_batches=0):
                for told in batch["told"]:
                    yield Told.model_validate_json(told)
    finally:
        if ours:
            ray.shutdown()


class _Actor:
    """A worker as Ray Data calls it: batches of one block, as JSON."""

    def __init__(self, spec: str, limits: Mapping[str, Any]) -> None:
        self._worker = Worker(spec, limits)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        return {"told": [self._worker.ask(Block.model_validate_json(b)).model_dump_json() for b in batch["block"]]}


def _share(limit: float, workers: int) -> float:
    """A worker's part of a limit, never none; a whole number stays one."""
    return max(1, limit // workers) if isinstance(limit, int) else limit / workers


def _ray() -> Any:
    """Ray with its Data, without telemetry."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DataFault("--ray", f"Ray is not installed ({error})", "pip install 'magister[ray]'") from None
    return ray


def _start(ray: Any, workers: int) -> None:
    """Join the user's cluster, or start Ray on this machine: without a dashboard, and quietly."""
    quiet: dict[str, Any] = {"logging_level": logging.WARNING}
    if "RAY_ADDRESS" in os.environ:
        ray.init(**quiet)
    else:
        cpus = max(os.cpu_count() or 1, workers)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
