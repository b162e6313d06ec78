#!/usr/bin/env python3
"""Reads the events of a run with TensorBoard itself, and compares them with the run's own lines.

usage: tensorboard_reader.py EVENTS METRICS   (needs tensorboard; `nfl finetune … --tensorboard EVENTS --log METRICS`)
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

accumulator = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
accumulator.Reload()
lines = [json.loads(line) for line in open(sys.argv[2])]
tags = sorted({name for line in lines for name in line} - {"step"})
assert sorted(accumulator.Tags()["scalars"]) == tags, accumulator.Tags()
for tag in tags:
    expected = [(line["step"], line[tag]) for line in lines if tag in line]
    found = [(event.step, event.value) for event in accumulator.Scalars(tag)]
    assert [step for step, _ in found] == [step for step, _ in expected], (tag, found, expected)
    for (step, value), (_, other) in zip(found, expected):
        assert abs(value - other) <= 1e-6 * max(1.0, abs(other)), (tag, step, value, other)
print(f"{len(tags)} tags, {len(lines)} lines: all as in {sys.argv[2]}")
