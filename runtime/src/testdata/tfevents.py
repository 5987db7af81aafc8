"""Writes events.out.tfevents.golden with TensorBoard's own library, and reads a folder as TensorBoard does.

    python tfevents.py golden events.out.tfevents.golden
    python tfevents.py read DIR

Needs `pip install tensorboard` (2.21 wrote the file that is stored). The tests of the crate need no Python.
"""

import json
import sys

from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def golden(path):
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1764000000.25, file_version="brain.Event:2").SerializeToString())
        points = [
            (1764000001.5, "loss", 1, 4.625),
            (1764000002.5, "loss", 2, float("nan")),
            (1764000003.5, "loss", 300, 0.1),
            (1764000004.5, "result/top1", 0, -0.0),
            (1764000005.5, "größe", 1000000, 1e30),
        ]
        for wall, tag, step, y in points:
            value = Summary.Value(tag=tag, simple_value=y)
            writer.write(Event(wall_time=wall, step=step, summary=Summary(value=[value])).SerializeToString())


def read(folder):
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(folder)
    multiplexer.Reload()
    out = {}
    for run in sorted(multiplexer.Runs()):
        accumulator = multiplexer.GetAccumulator(run)  # an EventAccumulator
        for tag in sorted(accumulator.Tags()["scalars"]):
            out[f"{run} {tag}"] = [(point.step, point.value) for point in accumulator.Scalars(tag)]
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    {"golden": golden, "read": read}[sys.argv[1]](sys.argv[2])
