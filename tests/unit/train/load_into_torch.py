#!/usr/bin/python3
"""load_into_torch.py MODEL.safetensors CASE.json: loads the file into torch.nn.LSTM and Linear, runs
the case's tokens and prints the largest difference to the case's outputs.

CASE.json: {"hidden": H, "tokens": [[...]] (time, rows), "outputs": [[[...]]] (time, rows, classes)}.
The file is read by its published format, with nothing of this project's code.
"""

import json
import struct
import sys

import torch

TYPES = {"F32": torch.float32, "F64": torch.float64}


def read_safetensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        flat = torch.frombuffer(data[begin:end], dtype=TYPES[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def main():
    tensors = read_safetensors(sys.argv[1])
    with open(sys.argv[2]) as file:
        case = json.load(file)
    classes = tensors["readout.bias"].shape[0]
    rnn = torch.nn.LSTM(classes, case["hidden"])
    readout = torch.nn.Linear(case["hidden"], classes)
    part = lambda prefix: {name[len(prefix):]: value for name, value in tensors.items()
                           if name.startswith(prefix)}
    rnn.load_state_dict(part("rnn."))
    readout.load_state_dict(part("readout."))
    inputs = torch.nn.functional.one_hot(torch.tensor(case["tokens"]), classes).float()
    with torch.no_grad():
        outputs = readout(rnn(inputs)[0])
    print((outputs - torch.tensor(case["outputs"])).abs().max().item())


if __name__ == "__main__":
    main()
