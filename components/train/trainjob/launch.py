"""Trains on many nodes, as the train step's own pod does it; read it from top to bottom."""

import sys

from components.step import Metadata, StepError, require
from components.storage import NotFound, open_store
from components.train.interface import Train
from components.train.trainjob.cluster import connect
from components.train.trainjob.exchange import Damaged, collect, send
from components.train.trainjob.follow import Deleted, follow
from components.train.trainjob.job import place, removed
from components.train.trainjob.origin import origin
from components.train.trainjob.resource import name_of, trainjob


def launch(step: Train, identity: str) -> Metadata:
    """Trains on the cluster's nodes, and writes the step's outputs."""
    must = "be s3://bucket/prefix where nodes is above 1, so that every worker reaches it"
    require(step.store.startswith("s3://"), "store", step.store, must)
    cluster, store = connect(), open_store(step.store)
    with removed(cluster, identity):
        damaged = False
        try:
            return collect(step, store, identity)  # what an earlier attempt did not live to collect
        except NotFound:
            pass
        except Damaged as error:
            damaged = True
            print(f"warning: {error}; it is trained once more", file=sys.stderr, flush=True)
        send(step, store, identity)
        place(cluster, trainjob(step, identity, origin(cluster)), identity, anew=damaged)
        reason = StepError(f"TrainJob {name_of(identity)} is complete and left no result in {store.uri}")
        try:
            follow(cluster, name_of(identity), step.nodes)
        except Deleted as deleted:
            reason = deleted
        try:
            return collect(step, store, identity)
        except NotFound:
            raise reason from None
