#!/usr/bin/env python3
"""Makes events.tfevents with TensorBoard's own protobuf classes and record writer, as a judge of nfl's.

usage: events.py   (needs tensorboard)
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1_700_000_000.5


def scalars(step, values):
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in values]
    return Event(wall_time=TIME, step=step, summary=Summary(value=values))


with open(Path(__file__).parent / "events.tfevents", "wb") as file:
    writer = RecordWriter(file)
    for event in (
        Event(wall_time=TIME, file_version="brain.Event:2"),
        Event(wall_time=TIME, step=12, session_log=SessionLog(status=SessionLog.START)),
        scalars(1, [("loss", 2.5)]),
        scalars(300, [("loss", -0.125), ("tokens_per_second", 1e6)]),
    ):
        writer.write(event.SerializeToString())
    writer.flush()
